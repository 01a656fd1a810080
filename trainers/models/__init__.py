"""One file per family of networks. A new one is a file here with a function under `@register_model`."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from trainers.registry import Registry

models: Registry[Callable[..., nn.Module]] = Registry("model")


def register_model(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Enter `build(num_classes, in_channels, **kw)`, whose networks have an `input_shape`, under its name."""
    return models.register(build.__name__)(build)


def create_model(name: str, num_classes: int | None = None, in_channels: int = 3, **kw: Any) -> nn.Module:
    """A float network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: left out, that of the data set the network is known for (ImageNet 1000, CIFAR-10 10).
        in_channels: channels of the input; `model.input_shape` is (in_channels, H, W).
    """
    sizes = {"num_classes": num_classes, "in_channels": in_channels}
    for what, value in sizes.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{what} has to be a whole number from 1 on, but is {value!r}.")
    if num_classes is not None:
        kw["num_classes"] = num_classes
    return models[name](in_channels=in_channels, **kw)


def list_models(pattern: str | None = None) -> list[str]:
    """The names of the networks, all or those that match a shell pattern such as "resnet*"."""
    return [name for name in models.names() if pattern is None or fnmatchcase(name, pattern)]


models.discover(__name__, __path__)
