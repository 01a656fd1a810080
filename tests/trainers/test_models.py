"""Every registered network."""

from typing import Any

import pytest
import torch
from torch import nn

import trainers
from trainers.operator import BinaryLayer

FLOAT = (nn.Conv2d, nn.Linear)
PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672}  # as torchvision counts them
CONVOLUTIONS = {"resnet18": 20, "resnet34": 36, "resnet20": 21, "vgg_small": 6}


def test_names() -> None:
    assert {"resnet18", "resnet20", "resnet34", "vgg_small"} <= set(trainers.list_models())
    assert trainers.list_models("resnet*") == ["resnet18", "resnet20", "resnet34"]
    assert trainers.list_models("nothing*") == []
    with pytest.raises(ValueError, match="no model 'resnet19'; did you mean 'resnet1"):
        trainers.create_model("resnet19")
    with pytest.raises(ValueError, match="num_classes has to be"):
        trainers.create_model("resnet20", num_classes=0)


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
