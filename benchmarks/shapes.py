"""The layers and networks that are measured. torch is imported late: `limit` does not need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bibench_tvm.cli.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """One layer with equal extents in both directions of its kernel; `rows`: a dense layer at this batch."""

    channels: int
    out_channels: int
    height: int = 1
    width: int = 1
    kernel: int = 1
    stride: int = 1
    rows: int = 0

    @property
    def title(self) -> str:
        if self.rows:
            return f"dense {self.channels} to {self.out_channels}, batch {self.rows}"
        stride = f", stride {self.stride}" if self.stride != 1 else ""
        k = self.kernel
        return f"{k}x{k} {self.channels} to {self.out_channels}{stride}, {self.height}x{self.width}"


LAYERS = {
    "A": Shape(64, 64, 56, 56, 3),
    "B": Shape(128, 128, 28, 28, 3),
    "C": Shape(256, 256, 14, 14, 3),
    "D": Shape(512, 512, 7, 7, 3),
}
EXTRA = {
    shape.title: shape
    for shape in (
        Shape(96, 96, 27, 27, 3),
        Shape(48, 80, 15, 15, 5),
        Shape(64, 128, 56, 56, 1, 2),
        Shape(130, 70, 9, 11, 3),
        Shape(512, 1000, rows=1),
        Shape(512, 1000, rows=8),
        Shape(256, 256, 1, 1, 3),
    )
}
NETWORKS = ("resnet18", "resnet34", "vgg_small")


def chosen(kind: str, names: str, known: tuple[str, ...]) -> list[str]:
    """The names in a list with commas; an error names the nearest where one is unknown."""
    picked = [name.strip() for name in names.split(",") if name.strip()]
    for name in picked:
        if name not in known:
            raise unknown(kind, name, known)
    return picked


def binary_layer(shape: Shape) -> nn.Module:
    """Sign and binary layer, floats in and floats out; the same weights each time."""
    return _sequence(lambda: [_layer(shape)])


def channels_last(network: nn.Module) -> nn.Module:
    """The network between two transposes, so that its input and its output are channels last."""
    from torch import nn

    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    return ChannelsLast().eval()


def chain(shape: Shape) -> nn.Module:
    """The layer as it stands inside a network, so that its kernel goes from bits to bits: batch norm and
    another binary layer follow."""
    from torch import nn

    norm = nn.BatchNorm1d if shape.rows else nn.BatchNorm2d
    after = Shape(shape.out_channels, 32, shape.height, shape.width, shape.kernel, rows=shape.rows)
    return _sequence(lambda: [_layer(shape), norm(shape.out_channels), _layer(after)])


def float_layer(shape: Shape) -> nn.Module:
    import torch

    torch.manual_seed(0)
    return _layer(shape).eval()


def stem() -> nn.Module:
    """The first convolution of a ResNet for ImageNet, which stays float: [1, 3, 224, 224]. Its output is
    channels last, as the pooling reads it that follows in a network."""
    import torch
    from torch import nn

    class ChannelsLastOutput(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1)

    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(64), nn.Hardtanh(), ChannelsLastOutput()).eval()


def example(shape: Shape) -> Tensor:
    import torch

    torch.manual_seed(1)
    extents = (shape.rows, shape.channels) if shape.rows else (1, shape.channels, shape.height, shape.width)
    return torch.randn(extents)


def network(name: str, algorithm: str) -> tuple[nn.Module, Tensor]:
    """A network with weights that were not trained, the same for every algorithm, and its input."""
    import torch

    import trainers

    torch.manual_seed(0)
    made = trainers.create_model(name)
    vary_batch_norms(made)
    (image,) = trainers.example_inputs_of(made)
    made = trainers.binarize(made, algorithm)
    torch.manual_seed(1)
    return made.eval(), torch.randn(image.shape)


def _sequence(make: Callable[[], list[nn.Module]]) -> nn.Module:
    import torch
    from torch import nn

    import trainers

    torch.manual_seed(0)
    made = nn.Sequential(*make())
    vary_batch_norms(made)
    return trainers.binarize(made, "bnn", keep=[]).eval()


def _layer(shape: Shape) -> nn.Module:
    from torch import nn

    if shape.rows:
        return nn.Linear(shape.channels, shape.out_channels, bias=False)
    return nn.Conv2d(
        shape.channels, shape.out_channels, shape.kernel, shape.stride, shape.kernel // 2, bias=False
    )


def vary_batch_norms(module: nn.Module) -> None:
    """Statistics as after training, where no two channels are alike; fresh ones would fold to nothing."""
    from torch import nn

    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            statistics: Any = part
            nn.init.normal_(statistics.running_mean)
            nn.init.uniform_(statistics.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
