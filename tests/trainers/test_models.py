"""Every registered network, and what a family of other networks may be."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import trainers
from tests.trainers.toy_text import HasMark, toy_text
from trainers.inputs import call, describe
from trainers.models import models, sizes_by_shapes, sizes_by_weights
from trainers.operator import BinaryLayer

FLOAT = (nn.Conv2d, nn.Linear)
PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672}  # as torchvision counts them
CONVOLUTIONS = {"resnet18": 20, "resnet34": 36, "resnet20": 21, "vgg_small": 6}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models._entries, "toy_text", toy_text)
    monkeypatch.setitem(models._entries, "toy_text@small", lambda width=4: toy_text(width=width))


def test_names() -> None:
    assert {"resnet18", "resnet20", "resnet34", "vgg_small"} <= set(trainers.list_models())
    assert trainers.list_models("resnet*") == ["resnet18", "resnet20", "resnet34"]
    assert trainers.list_models("nothing*") == []
    with pytest.raises(ValueError, match="no model 'resnet19'; did you mean 'resnet1"):
        trainers.create_model("resnet19")
    for wrong in (0, -1, True, 2.0, "3", -(10**9000)):
        with pytest.raises(ValueError, match="num_classes has to be a whole number from 1 on, but is"):
            trainers.create_model("resnet20", num_classes=wrong)
    with pytest.raises(ValueError, match="resnet20 has no size 'words'; it takes num_classes, in_channels"):
        trainers.create_model("resnet20", words=3)


@pytest.mark.parametrize("name", [*trainers.list_models(), "toy_text", "toy_text@small"])
def test_every_network_takes_its_example_and_has_the_sizes_that_its_weights_show(name: str) -> None:
    sizes = {size: value + 1 for size, value in trainers.default_sizes(name).items()}
    with torch.device("meta"):
        model = trainers.binarize(trainers.create_model(name, **sizes), "bnn")
        example = trainers.example_inputs_of(model)
        outputs = call(model.eval(), example)
    inputs = [x.shape for x in pytree.tree_leaves(example)]
    assert all(shape[0] == 1 for shape in inputs)
    assert any(layer.binary for layer in trainers.binarization_report(model))
    assert sizes_by_weights(name, model.state_dict()) == sizes
    shown = sizes_by_shapes(name, inputs, [x.shape for x in pytree.tree_leaves(outputs)])
    assert {size: shown[size] for size in sizes if size in ("num_classes", "in_channels", "length")} == {
        size: value for size, value in sizes.items() if size in ("num_classes", "in_channels", "length")
    }


def test_an_example_is_where_the_parameters_are_and_in_their_type() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.example_inputs = (torch.zeros(1, 2), torch.zeros(1, 2).long())

    for dtype in (torch.float16, torch.float64):
        example = trainers.example_inputs_of(Net().to(dtype))
        assert [x.dtype for x in example] == [dtype, torch.int64]
    with torch.device("meta"):
        built = Net()
    assert all(x.is_meta for x in trainers.example_inputs_of(built))
    example = trainers.example_inputs_of(built.to_empty(device="cpu"))
    assert [tuple(x.shape) for x in example if not x.is_meta] == [(1, 2), (1, 2)]
    assert trainers.example_inputs_of(nn.Linear(2, 2)) is None


def test_inputs_are_described_without_their_batch() -> None:
    assert describe(torch.zeros(2, 3)) == describe((torch.zeros(1, 3),)) == "(3,)"
    assert describe(HasMark.example_inputs) == "input_ids (8,) int64, attention_mask (8,) int64"


def test_what_is_called() -> None:
    def give(x: Any, y: Any = None) -> Any:
        return x, y

    one, two = torch.ones(1), torch.zeros(1)
    model: Any = give
    assert call(model, one) == (one, None)
    assert call(model, (one, two)) == call(model, {"y": two, "x": one}) == (one, two)
    boxes = [one, two]
    assert call(model, boxes) == (boxes, None)


@pytest.mark.parametrize("name", trainers.list_models())
def test_forward_and_binarized_layers(name: str) -> None:
    model: Any = trainers.create_model(name, num_classes=7, in_channels=2)
    assert model.input_shape[0] == 2
    x = torch.randn(1, *model.input_shape)
    with torch.inference_mode():
        assert model.eval()(x).shape == (1, 7)
    layers = [key for key, module in model.named_modules() if isinstance(module, FLOAT)]
    trainers.binarize(model, "bnn")
    assert [key for key, module in model.named_modules() if isinstance(module, FLOAT)] == [
        layers[0],
        layers[-1],
    ]
    assert [key for key, module in model.named_modules() if isinstance(module, BinaryLayer)] == layers[1:-1]
    assert isinstance(model.get_submodule(layers[0]), nn.Conv2d)
    assert isinstance(model.get_submodule(layers[-1]), nn.Linear)
    if name in CONVOLUTIONS:
        assert len(layers) == CONVOLUTIONS[name] + 1
    with torch.inference_mode():
        assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize("name", trainers.list_models())
def test_sizes_and_activation(name: str) -> None:
    with torch.device("meta"):
        model: Any = trainers.create_model(name)
    assert model.input_shape in ((3, 224, 224), (3, 32, 32))
    classes = 1000 if model.input_shape[1] == 224 else 10
    assert list(model.parameters())[-1].shape == (classes,)
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())
    if name in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
