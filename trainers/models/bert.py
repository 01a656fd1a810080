"""BERT for classes of sentences (Devlin et al., 2019, "BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding", NAACL, arXiv:1810.04805), and smaller ones in the sizes of TinyBERT (Jiao et al.,
2020, "TinyBERT: Distilling BERT for Natural Language Understanding", EMNLP Findings, arXiv:1909.10351).

The float network computes what the published ones do. Once its layers are binary, it has bi-attention (Qin et
al., 2022, "BiBERT: Accurate Fully Binarized BERT", ICLR, arXiv:2203.06390), as appendix A.3 of the BiBench
paper says, and Hardtanh in the place of GELU, which is the activation throughout that paper:

    A = sign(Q) sign(K)' / sqrt(d)      context = bool(A) sign(V)      bool(a) = 1 where a >= 0, else 0

so that its products have the operands +1 and -1, or 1 and 0, and there is no softmax.

Parameters are named as in `transformers.BertForSequenceClassification`."""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.models import models, register_model
from trainers.operator import BinaryLayer, clip, identity, sign

# What load_transformers cannot do without; the pooler is in not every file.
NEEDED = re.compile(r"(_embeddings|LayerNorm|query|key|value|(intermediate|output)\.dense)\.(weight|bias)$")
MASKED = -1e4  # the score of a token that is not there; below it float16 would not reach


class Embeddings(nn.Module):
    """Of words, places and sentences, added up: int64 (N, L), (N, L) -> (N, L, hidden)."""

    def __init__(self, vocabulary: int, length: int, hidden: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, hidden)
        self.position_embeddings = nn.Embedding(length, hidden)
        self.token_type_embeddings = nn.Embedding(2, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor, token_types: Tensor) -> Tensor:
        places = self.position_embeddings.weight[: ids.shape[1]]
        x = self.word_embeddings(ids) + places + self.token_type_embeddings(token_types)
        return self.dropout(self.LayerNorm(x))


class SelfAttention(nn.Module):
    """(N, L, hidden) and a mask, bool (N, 1, 1, L), True where there is no token -> (N, L, hidden)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        binary = isinstance(self.query, BinaryLayer)
        if binary:
            # Without scales these are integers about as large as the root of the width: eq. 12 would leave
            # hardly one of them a gradient. The scores are divided by the root of theirs.
            query, key, value = (sign(part, identity, training=self.training) for part in (query, key, value))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        scores = scores.masked_fill(absent, MASKED)
        if binary:
            weights = (sign(scores, clip, training=self.training) + 1) / 2
        else:
            weights = self.dropout(scores.softmax(-1))
        return (weights @ value).transpose(1, 2).flatten(2)


class Output(nn.Module):
    """Linear layer, shortcut, layer norm: (N, L, inside), (N, L, hidden) -> (N, L, hidden)."""

    def __init__(self, inside: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inside, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + shortcut)


class Dense(nn.Module):
    """One linear layer under the name that transformers gives it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class Attention(nn.Module):
    """Attention with its output: (N, L, hidden) -> (N, L, hidden)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.self = SelfAttention(hidden, heads)
        self.output = Output(hidden, hidden)

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        return self.output(self.self(x, absent), x)


class Layer(nn.Module):
    """Attention, then two linear layers for every token: (N, L, hidden) -> (N, L, hidden)."""

    def __init__(self, hidden: int, heads: int, intermediate: int) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads)
        self.intermediate = Dense(hidden, intermediate)
        self.output = Output(intermediate, hidden)

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        x = self.attention(x, absent)
        y = self.intermediate(x)
        return self.output(F.hardtanh(y) if isinstance(self.output.dense, BinaryLayer) else F.gelu(y), x)


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, layers: int, hidden: int, heads: int, intermediate: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(hidden, heads, intermediate) for _ in range(layers))

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, absent)
        return x


class Bert(nn.Module):
    """Embeddings, encoder, and of the first token the pooler: int64 (N, L) three times -> (N, hidden)."""

    def __init__(
        self, layers: int, hidden: int, heads: int, intermediate: int, vocabulary: int, length: int
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocabulary, length, hidden)
        self.encoder = Encoder(layers, hidden, heads, intermediate)
        self.pooler = Dense(hidden, hidden)

    def forward(self, ids: Tensor, mask: Tensor, token_types: Tensor) -> Tensor:
        x = self.encoder(self.embeddings(ids, token_types), (mask == 0)[:, None, None])
        return torch.tanh(self.pooler(x[:, 0]))


class BertClassifier(nn.Module):
    """BERT with a classifier: int64 (N, L) ids, mask (1, and 0 behind the end) and token types -> (N, C).

    L is at most `length`.
    """

    def __init__(
        self,
        layers: int,
        hidden: int,
        heads: int,
        intermediate: int,
        num_classes: int,
        vocabulary: int,
        length: int,
    ) -> None:
        super().__init__()
        self.length = length
        self.bert = Bert(layers, hidden, heads, intermediate, vocabulary, length)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(hidden, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @property
    def example_inputs(self) -> dict[str, Tensor]:
        ids = torch.zeros(1, self.length, dtype=torch.int64)
        return {"input_ids": ids, "attention_mask": ids + 1, "token_type_ids": ids.clone()}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.bert(input_ids, attention_mask, token_type_ids)))


def load_transformers(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Give `model` the weights of a BERT of `transformers`, float or binary as `model` is.

    Args:
        model: of `create_model("bert_...")`, perhaps binarized.
        state: the state dict of a BertModel or of one with a head; or as TensorFlow's were converted, with
            "gamma" and "beta". The places beyond the length of `model` are left out, and so are heads for
            other tasks.

    Returns:
        The names of the parameters that keep their values, as the file has none for them: the classifier's,
        the pooler's, an algorithm's own.

    Raises:
        ValueError: weights of the encoder that are missing or have another shape.
    """
    given = {}
    for name, value in state.items():
        name = re.sub(r"LayerNorm\.(gamma|beta)$", _plain_norm, name)
        given[name if name.startswith(("bert.", "classifier.")) else f"bert.{name}"] = value
    own = model.state_dict()
    places = "bert.embeddings.position_embeddings.weight"
    if places in given and places in own:
        given[places] = given[places][: len(own[places])]
    loaded = {name: given[name] for name in own if name in given}
    for name in own:
        if name not in loaded and NEEDED.search(name):
            raise ValueError(f"The weights are not of this BERT: they have no {name}.")
    if "classifier.weight" in loaded and loaded["classifier.weight"].shape != own["classifier.weight"].shape:
        loaded = {name: value for name, value in loaded.items() if not name.startswith("classifier.")}
    for name, value in loaded.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f"The weights are not of this BERT: their {name} has the shape {tuple(value.shape)}, but "
                f"should have {tuple(own[name].shape)}."
            )
    with torch.no_grad():
        for name, value in loaded.items():
            own[name].copy_(value)
    return [name for name in own if name not in loaded]


def _plain_norm(match: re.Match[str]) -> str:
    return "LayerNorm." + {"gamma": "weight", "beta": "bias"}[match[1]]


@register_model
def bert_tiny4(num_classes: int = 2, vocabulary: int = 30522, length: int = 512) -> nn.Module:
    """TinyBERT of 4 layers, 312 wide: (N, L) -> (N, 2)."""
    return BertClassifier(4, 312, 12, 1200, num_classes, vocabulary, length)


@register_model
def bert_tiny6(num_classes: int = 2, vocabulary: int = 30522, length: int = 512) -> nn.Module:
    """TinyBERT of 6 layers, 768 wide: (N, L) -> (N, 2)."""
    return BertClassifier(6, 768, 12, 3072, num_classes, vocabulary, length)


@register_model
def bert_base(num_classes: int = 2, vocabulary: int = 30522, length: int = 512) -> nn.Module:
    """BERT-Base, 12 layers, 768 wide: (N, L) -> (N, 2)."""
    return BertClassifier(12, 768, 12, 3072, num_classes, vocabulary, length)


@models.register("bert_tiny4@small")
def bert_tiny4_small(num_classes: int = 2, vocabulary: int = 1000, length: int = 32) -> nn.Module:
    """(N, L) -> (N, 2): one layer, 64 wide."""
    return BertClassifier(1, 64, 2, 128, num_classes, vocabulary, length)


@models.register("bert_tiny6@small")
def bert_tiny6_small(num_classes: int = 2, vocabulary: int = 1000, length: int = 32) -> nn.Module:
    """(N, L) -> (N, 2): two layers, 64 wide."""
    return BertClassifier(2, 64, 2, 128, num_classes, vocabulary, length)


@models.register("bert_base@small")
def bert_base_small(num_classes: int = 2, vocabulary: int = 1000, length: int = 32) -> nn.Module:
    """(N, L) -> (N, 2): two layers, 128 wide."""
    return BertClassifier(2, 128, 4, 256, num_classes, vocabulary, length)
