"""What binarization does to the local structures of architectures: section A.7 and table 7 of the paper."""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import torch
from torch import Tensor, nn

import trainers
from trainers.operator import BinaryLayer, clip, sign

TASK = "structure"  # in the key of a result: nothing is learnt
ALGORITHM = "bnn"
WIDTHS = (64, 128, 256, 512)


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut, as in ResNet: (N, C, H, W) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 4
        self.reduce = nn.Conv2d(width, inner, 1, bias=False)
        self.middle = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.expand = nn.Conv2d(inner, width, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (inner, inner, width))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer, norm in zip((self.reduce, self.middle, self.expand), self.norms, strict=True):
            y = norm(layer(y))
        return x + y


class SubMlp(nn.Module):
    """Three linear layers in series, as in PointNet: (N, points, C) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SelfAttention(nn.Module):
    """Three linear layers and two products, one head, as in BERT: (N, L, C) to the same.

    Once its layers are binary the operands of the products are too, those of the second the signs of the
    scores: BNN as it is, without the bi-attention of our BERT.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)
        if not isinstance(self.query, BinaryLayer):
            scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
            return scores.softmax(-1) @ value
        query, key, value = (sign(part, clip, training=False) for part in (query, key, value))
        return sign(query @ key.transpose(-1, -2), clip, training=False) @ value


class Structure(msgspec.Struct, frozen=True):
    """A local structure of a kind of networks, for a number of channels, and its inputs.

    Attributes:
        build: of so many channels; shape: of the inputs, for an extent and so many channels.
        extents: the sides of an image, the tokens or the points.
    """

    build: Callable[[int], nn.Module]
    shape: Callable[[int, int], tuple[int, ...]]
    extents: tuple[int, ...]


STRUCTURES = {
    "cnn": Structure(Bottleneck, lambda side, width: (1, width, side, side), (14, 28, 56, 112)),
    "transformer": Structure(SelfAttention, lambda tokens, width: (1, tokens, width), (64, 128, 256, 512)),
    "mlp": Structure(SubMlp, lambda points, width: (1, points, width), (64, 128, 256, 512)),
}


def binarization_error(structure: Structure, seed: int = 0) -> dict[tuple[int, int], float]:
    """Equation 41, E(|f(x) / std f(x) - f'(x) / std f'(x)|), of each extent and number of channels.

    f is the structure with fresh weights, f' the same with all its layers and products binarized by BNN, x
    standard normal. The norm is the mean over the values, so that sizes can be compared; normalisations
    take the statistics of x, as a fresh network has no others.

    Our means are 1.09 to 1.11 times those of table 7, for all three alike: the paper does not say how it
    norms. Their order is the paper's.
    """
    found = {}
    for width in WIDTHS:
        torch.manual_seed(seed)
        model = structure.build(width)
        binary = trainers.binarize(copy.deepcopy(model), ALGORITHM, keep=[])
        for extent in structure.extents:
            x = torch.randn(structure.shape(extent, width))
            with torch.no_grad():
                whole, signs = (y / y.std() for y in (model(x), binary(x)))
            found[extent, width] = float((whole - signs).abs().mean())
    return found
