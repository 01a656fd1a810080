"""Which layers `binarize` swaps, what it carries over, and what it refuses."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import trainers
from trainers.operator import BinaryLayer


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)),
        nn.Linear(4, 4),
        nn.Linear(4, 2),
    )


def binary(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BinaryLayer)]


def test_names() -> None:
    eight = {"bnn", "xnor", "dorefa", "bireal", "xnorpp", "reactnet", "recu", "fda"}
    assert trainers.list_algorithms()[0] == "fp32"
    assert set(trainers.list_algorithms()) >= eight


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (None, ["1.0", "1.1", "2"]),
        ([], ["0", "1.0", "1.1", "2", "3"]),
        (["2"], ["0", "1.0", "1.1", "3"]),
        (["1"], ["0", "2", "3"]),
        (["0", "1.1"], ["1.0", "2", "3"]),
    ],
)
def test_keep(keep: list[str] | None, expected: list[str]) -> None:
    model = small()
    assert trainers.binarize(model, "bnn", keep=keep) is model
    assert binary(model) == expected
    layers = list(model.modules())
    trainers.binarize(model, "xnor", keep=keep)  # a second time changes nothing
    assert list(model.modules()) == layers


def test_fp32_changes_nothing() -> None:
    model = small()
    assert trainers.binarize(model, "fp32") is model
    assert binary(model) == []


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Linear(2, 3)])
def test_a_layer_alone_is_binarized(layer: nn.Module) -> None:
    swapped = trainers.binarize(layer)
    assert isinstance(swapped, BinaryLayer)
    assert swapped.weight is layer.weight
    assert swapped.bias is layer.bias
    assert trainers.binarize(swapped) is swapped


def test_weights_device_and_mode_are_carried_over() -> None:
    model = small().double().eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trainers.binarize(model, "reactnet", keep=[])
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert {p.dtype for p in model.parameters()} == {torch.double}
    assert not any(module.training for module in model.modules())
    assert model[0](torch.randn(1, 2, 5, 5).double()).dtype == torch.double


def test_a_layer_at_two_places_stays_one() -> None:
    shared = nn.Linear(3, 3)
    model = trainers.binarize(nn.Sequential(shared, shared), keep=[])
    assert model[0] is model[1]  # type: ignore[index]
    assert isinstance(model[0], BinaryLayer)  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"algorithm": "reacnet"}, "There is no algorithm 'reacnet'; did you mean 'reactnet'"),
        ({"variant": "papr"}, "There is no variant 'papr'; did you mean 'paper'"),
        ({"keep": ["1.2"]}, "There is no module to keep '1.2'; did you mean '1"),
        ({"keep": ["@"]}, "known are 0, 1"),
        ({"algorithm": "fp32", "keep": ["stem"]}, "no module to keep 'stem'"),
        (
            {"algorithm": "recu", "hyperparameters": {"tau": 0.9}},
            "recu has no hyper-parameter 'tau'; it takes tau_start, tau_end.",
        ),
        ({"algorithm": "bnn", "hyperparameters": {"tau": 0.9}}, "no hyper-parameter 'tau'; it takes none"),
        ({"algorithm": "fp32", "hyperparameters": {"tau": 0.9}}, "fp32 has no hyper-parameter 'tau'"),
        (
            {"algorithm": "recu", "hyperparameters": {"tau_end": "0.9"}},
            "tau_end has to be a number, but is '0.9'.",
        ),
        (
            {"algorithm": "recu", "hyperparameters": {"tau_end": float("nan")}},
            "tau_end has to be a number, but is nan.",
        ),
        (
            {"algorithm": "recu", "hyperparameters": {"tau_end": 1}},
            "ReCU's tau_end is between 0.5 and 1, but 1.0 was given",
        ),
        ({"algorithm": "fda", "hyperparameters": {"omega": 0}}, "FDA's omega is between 0 and 100"),
        (
            {"algorithm": "fda", "hyperparameters": {"terms_end": 2.5}},
            "terms_end has to be a whole number, but is 2.5.",
        ),
        ({"algorithm": "fda", "hyperparameters": {"terms_start": True}}, "has to be a whole number"),
    ],
)
def test_what_is_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        trainers.binarize(small(), **arguments)


def test_hyperparameters_reach_the_layers() -> None:
    model = trainers.binarize(small(), "fda", keep=["0"], hyperparameters={"omega": 1, "terms_end": 3})
    layer: Any = model[3]  # type: ignore[index]
    assert dataclasses.asdict(layer.hyperparameters) == {
        **trainers.list_hyperparameters("fda"),
        "omega": 1.0,
        "terms_end": 3,
    }
    assert "omega=1.0, terms_start=9, terms_end=3" in repr(layer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.hyperparameters.omega = 2.0


def test_a_network_says_what_stays_float() -> None:
    model = small()
    model.stays_float = ["1.1"]  # type: ignore[assignment]
    assert binary(trainers.binarize(model, "bnn")) == ["0", "1.0", "2", "3"]
    assert trainers.binarization_report(model)[2].reason == "the network says that it stays float"
    model = small()
    model.stays_float = ["1.1"]  # type: ignore[assignment]
    assert binary(trainers.binarize(model, "bnn", keep=["0"])) == ["1.0", "1.1", "2", "3"]


class Branching(nn.Module):
    """Looks at the values of its ids, so that it can be traced on examples alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    @property
    def example_inputs(self) -> dict[str, torch.Tensor]:
        return {"ids": torch.tensor([[4, 1]])}

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.embedding(ids if ids.max() > 1 else ids + 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heads_are_found_on_the_examples_of_the_network(dtype: torch.dtype) -> None:
    assert binary(trainers.binarize(Branching().to(dtype), "bnn")) == ["middle"]


def test_trainers_imports_neither_tvm_nor_the_compiler() -> None:
    code = """
import importlib, pkgutil, sys, trainers
for module in pkgutil.walk_packages(trainers.__path__, "trainers."):
    importlib.import_module(module.name)
sys.exit(" ".join({"tvm", "bibench_tvm"} & set(sys.modules)) or 0)
"""
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
