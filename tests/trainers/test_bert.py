"""BERT against PyTorch's own encoder, bi-attention against its formula, and the names of transformers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from trainers.inputs import call
from trainers.models.bert import SelfAttention, load_transformers


def small(algorithm: str = "fp32", name: str = "bert_tiny6@small") -> Any:
    torch.manual_seed(0)
    return trainers.binarize(trainers.create_model(name, num_classes=3), algorithm).eval()


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, (2, 32), generator=generator)
    mask = (torch.arange(32) < torch.tensor([[32], [20]])).long()
    types = (torch.arange(32) > 9).long().expand(2, 32)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def test_the_float_network_is_an_encoder_of_pytorch() -> None:
    model, inputs = small(), batch()
    own = model.state_dict()
    for name, value in own.items():
        if name.endswith(("query.weight", "key.weight")):
            value *= 20  # else all tokens weigh alike
    x = model.bert.embeddings(inputs["input_ids"], inputs["token_type_ids"])
    for index in range(2):
        layer = nn.TransformerEncoderLayer(64, 2, 128, 0, "gelu", 1e-12, batch_first=True)
        at = f"bert.encoder.layer.{index}."
        projections = [at + f"attention.self.{name}." for name in ("query", "key", "value")]
        theirs = {}
        for kind in ("weight", "bias"):
            theirs |= {
                f"self_attn.in_proj_{kind}": torch.cat([own[name + kind] for name in projections]),
                f"self_attn.out_proj.{kind}": own[f"{at}attention.output.dense.{kind}"],
                f"norm1.{kind}": own[f"{at}attention.output.LayerNorm.{kind}"],
                f"linear1.{kind}": own[f"{at}intermediate.dense.{kind}"],
                f"linear2.{kind}": own[f"{at}output.dense.{kind}"],
                f"norm2.{kind}": own[f"{at}output.LayerNorm.{kind}"],
            }
        layer.load_state_dict(theirs)
        x = layer(x, src_key_padding_mask=inputs["attention_mask"] == 0)
    first = torch.tanh(model.bert.pooler.dense(x[:, 0]))
    torch.testing.assert_close(call(model, inputs), model.classifier(first), atol=1e-5, rtol=1e-5)


def test_bi_attention() -> None:
    torch.manual_seed(0)
    holder = nn.ModuleDict({"attention": SelfAttention(16, 2), "head": nn.Linear(1, 1)})
    attention: Any = trainers.binarize(holder, "bnn", keep=["head"])["attention"].eval()
    x = torch.randn(1, 7, 16)
    absent = torch.arange(7) >= 5
    parts = [getattr(attention, name)(x)[0].detach().numpy() for name in ("query", "key", "value")]
    query, key, value = (np.where(part >= 0, 1, -1).reshape(7, 2, 8) for part in parts)
    expected = np.zeros((7, 2, 8))
    for i in range(7):
        for j in range(5):
            for head in range(2):
                if query[i, head] @ key[j, head] >= 0:
                    expected[i, head] += value[j, head]
    found = attention(x, absent[None, None, None])
    assert np.array_equal(found[0].detach().numpy(), expected.reshape(7, 16))


@pytest.mark.parametrize("algorithm", ["fp32", "bnn"])
def test_what_is_behind_the_end_changes_nothing(algorithm: str) -> None:
    model, inputs = small(algorithm), batch()
    other = dict(inputs, input_ids=torch.where(inputs["attention_mask"] == 1, inputs["input_ids"], 7))
    assert not torch.equal(other["input_ids"], inputs["input_ids"])
    torch.testing.assert_close(call(model, other), call(model, inputs))


@pytest.mark.parametrize("algorithm", [a for a in trainers.list_algorithms() if a != "fp32"])
def test_every_layer_learns(algorithm: str) -> None:
    model = small(algorithm).train()
    call(model, batch()).square().sum().backward()
    shares = {
        name: (p.grad != 0).float().mean()
        for name, p in model.named_parameters()
        if p.dim() == 2 and "noise" not in name and "_embeddings" not in name
    }
    assert min(shares.values()) > 0
    assert min(share for name, share in shares.items() if "query" in name or "key" in name) > 0.4


def test_weights_of_transformers() -> None:
    source, inputs = small(), batch()
    state = source.state_dict()
    encoder = {name.removeprefix("bert."): value for name, value in state.items() if name.startswith("bert.")}
    places = torch.cat([encoder["embeddings.position_embeddings.weight"], torch.randn(480, 64)])
    theirs = {**encoder, "embeddings.position_embeddings.weight": places}
    theirs["embeddings.position_ids"] = torch.arange(512)

    model = trainers.create_model("bert_tiny6@small", num_classes=3).eval()  # as a BertModel is saved
    assert load_transformers(model, theirs) == ["classifier.weight", "classifier.bias"]
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if "classifier" not in name)
    assert load_transformers(model, {f"bert.{name}": v for name, v in theirs.items()} | state) == []
    assert torch.equal(call(model, inputs), call(source, inputs))

    old = {  # as TensorFlow's were converted, without a pooler, with a head of two classes and another
        f"bert.{name}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for name, value in theirs.items()
        if not name.startswith("pooler")
    } | {"cls.predictions.bias": torch.zeros(1000), "classifier.weight": torch.zeros(2, 64)}
    torch.manual_seed(1)
    binary = trainers.binarize(trainers.create_model("bert_tiny6@small", num_classes=3), "fda")
    kept = load_transformers(binary, old)
    fresh = {name for name in state if name.startswith(("classifier", "bert.pooler"))}
    assert fresh == set(kept) & set(state)
    own = binary.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if name not in fresh)

    with pytest.raises(ValueError, match=r"they have no bert.encoder.layer.1.attention.self.query.weight"):
        load_transformers(model, {name: v for name, v in theirs.items() if "layer.1" not in name})
    with pytest.raises(
        ValueError, match=r"their bert.*_embeddings.weight has the shape \(1000, 64\), but sho"
    ):
        load_transformers(trainers.create_model("bert_base@small"), theirs)
