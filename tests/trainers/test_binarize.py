"""Which layers `binarize` swaps, what it carries over, and what it refuses."""

import subprocess
import sys

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
    assert set(trainers.list_algorithms()) == eight | {"fp32"}


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
    ],
)
def test_unknown_names(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        trainers.binarize(small(), **arguments)


def test_trainers_imports_neither_tvm_nor_the_compiler() -> None:
    code = "import sys, trainers, trainers.fit; sys.exit(bool({'tvm', 'bibench_tvm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
