"""Networks of the paper's tracks and of kinds beyond it, in which more than convolutions takes time.

Those that `trainers` has come from there; the others are compact: enough of a kind's blocks, at the widths
that are usual for it, to have its mixture of operators. Float or binary is what `binarize` makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trainers
from benchmarks.shapes import vary_batch_norms
from trainers.models.bert import SelfAttention
from trainers.models.reactnet_a import RPReLU
from trainers.models.ssd import SSD


@dataclass(frozen=True)
class Case:
    """build: the network in float; shape: of its input, float32, or int64 below `vocabulary`; algorithm: by
    which it is binarized."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    algorithm: str
    vocabulary: int = 0

    def example(self) -> Tensor:
        torch.manual_seed(1)
        return torch.randint(self.vocabulary, self.shape) if self.vocabulary else torch.randn(self.shape)


class WholeText(nn.Module):
    """A classifier of texts that fill its length: int64 (N, L) -> (N, C)."""

    def __init__(self, classifier: nn.Module, length: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("mask", torch.ones(1, length, dtype=torch.int64))

    def forward(self, ids: Tensor) -> Tensor:
        mask: Any = self.mask
        return self.classifier(ids, mask, torch.zeros_like(mask))


class EncoderLayer(nn.Module):
    """A layer of a vision transformer, norms first: (N, L, hidden) -> (N, L, hidden)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention, self.projection = SelfAttention(hidden, heads), nn.Linear(hidden, hidden)
        self.wide, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        nowhere = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
        x = x + self.projection(self.attention(self.before(x), nowhere))
        return x + self.narrow(F.gelu(self.wide(self.between(x))))


class DeiT(nn.Module):
    """Patches of 16, a token for the class, layers, head: (N, 3, 224, 224) -> (N, 1000)."""

    def __init__(self, layers: int, hidden: int = 192, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, hidden, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, hidden) * 0.02)
        self.places = nn.Parameter(torch.randn(1, 197, hidden) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(hidden, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
        return self.head(self.norm(self.layers(x + self.places))[:, 0])


def convolution(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out))


class UNet(nn.Module):
    """Three halvings, three transposed convolutions, each joined by what was before: of images of 3, 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stem = self._pair(3, width)
        self.down = nn.ModuleList(self._pair(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, 2) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.joined = nn.ModuleList(self._pair(2 * a, a) for a in widths[-2::-1])
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _pair(channels: int, out: int) -> nn.Sequential:
        return nn.Sequential(convolution(channels, out), nn.Hardtanh(), convolution(out, out), nn.Hardtanh())

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for down in self.down:
            seen.append(down(F.max_pool2d(seen[-1], 2)))
        x = seen.pop()
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([seen.pop(), up(x)], 1))
        return self.head(x)


class Gate(nn.Module):
    """Squeeze and excitation: a factor for each channel, from the means."""

    def __init__(self, channels: int, last: nn.Module) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(channels, channels // 8, 1), nn.Conv2d(channels // 8, channels, 1)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.wide(F.relu(self.narrow(x.mean((2, 3), keepdim=True)))))


class BNextBlock(nn.Module):
    """3x3 and 1x1 with PReLU, a gate by sigmoid and a shortcut; twice the channels as two copies."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.spatial, self.spatial_act = convolution(channels, channels, 3, stride), nn.PReLU(channels)
        self.copies, self.stride = out // channels, stride
        self.points = nn.ModuleList(convolution(channels, channels, 1) for _ in range(self.copies))
        self.acts = nn.ModuleList(nn.PReLU(channels) for _ in range(self.copies))
        self.gate = Gate(channels, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.avg_pool2d(x, 2) if self.stride == 2 else x
        x = self.spatial_act(self.spatial(x) * self.gate(x)) + shortcut
        parts = [act(point(x)) + x for point, act in zip(self.points, self.acts, strict=True)]
        return torch.cat(parts, 1) if self.copies > 1 else parts[0]


class MeliusBlock(nn.Module):
    """A dense block, which adds `growth` channels, and one that improves these."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm, self.dense = nn.BatchNorm2d(channels), nn.Conv2d(channels, growth, 3, 1, 1, bias=False)
        self.again = nn.BatchNorm2d(channels + growth)
        self.improve = nn.Conv2d(channels + growth, growth, 3, 1, 1, bias=False)
        self.growth = growth

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.dense(self.norm(x))], 1)
        better = self.improve(self.again(x))
        return torch.cat([x[:, : -self.growth], x[:, -self.growth :] + better], 1)


def melius(widths: Sequence[int] = (64, 128, 256), blocks: int = 3, growth: int = 64) -> nn.Module:
    parts: list[nn.Module] = [*convolution(3, widths[0], 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = widths[0]
    for index, width in enumerate(widths):
        if index:  # a float transition
            parts += [
                nn.BatchNorm2d(channels), nn.MaxPool2d(2), nn.ReLU(),
                Kept(nn.Conv2d(channels, width, 1, bias=False)),
            ]  # fmt: skip
            channels = width
        for _ in range(blocks):
            parts.append(MeliusBlock(channels, growth))
            channels += growth
    return _classifier(parts, channels)


class Kept(nn.Module):
    """A layer that stays float."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.kept = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.kept(x)


class DPReLU(nn.Module):
    """PReLU with a slope for each side and a shift before and behind, a number each for every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        shape = (1, channels, 1, 1)
        self.above, self.below = (nn.Parameter(torch.rand(shape)) for _ in range(2))
        self.before, self.behind = (nn.Parameter(torch.randn(shape) * 0.1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.before
        return torch.where(x > 0, x * self.above, x * self.below) - self.behind


class PokeConv(nn.Module):
    """Convolution, its shortcut averaged and tiled to shape, DPReLU, a gate by a hard sigmoid."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.act, self.norm = (
            convolution(channels, out, kernel, stride),
            DPReLU(out),
            nn.BatchNorm2d(out),
        )
        self.gate = Gate(out, nn.Hardsigmoid())
        self.stride, self.channels, self.out = stride, channels, out

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.avg_pool2d(x, 3, 2, 1) if self.stride == 2 else x
        if self.out > self.channels:
            shortcut = shortcut.tile(1, self.out // self.channels, 1, 1)
        elif self.out < self.channels:
            shortcut = shortcut.unflatten(1, (self.channels // self.out, self.out)).mean(1)
        x = self.act(self.conv(x) + shortcut)
        return self.norm(x * self.gate(x))


class PokeBlock(nn.Module):
    """1x1 to a quarter, 3x3, 1x1 back, with a shortcut around all three."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        inside = out // 4
        self.convs = nn.Sequential(
            PokeConv(channels, inside, 1), PokeConv(inside, inside, 3, stride), PokeConv(inside, out, 1)
        )
        self.around = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x) + x if self.around else self.convs(x)


class BiMLPBlock(nn.Module):
    """Layer norm over channels, 1x1 and a 1x1 of shifted positions side by side, then two 1x1 with RPReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.here, self.beside = convolution(channels, channels, 1), convolution(channels, channels, 1)
        self.wide, self.narrow = (
            convolution(channels, 2 * channels, 1),
            convolution(2 * channels, channels, 1),
        )
        self.act, self.last = RPReLU(2 * channels), RPReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self._normed(self.before, x)
        x = x + self.here(y) + self.beside(y.roll((1, 1), (2, 3)))
        y = self._normed(self.between, x)
        return x + self.last(self.narrow(self.act(self.wide(y))))

    @staticmethod
    def _normed(norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def staged(
    block: Callable[[int, int, int], nn.Module], widths: Sequence[int], blocks: int, stem: nn.Module
) -> nn.Module:
    """stem gives widths[0] channels; each later stage halves the extent."""
    parts, channels = [stem], widths[0]
    for index, width in enumerate(widths):
        for i in range(blocks):
            parts.append(block(channels, width, 2 if index and not i else 1))
            channels = width
    return _classifier(parts, channels)


def bimlp(widths: Sequence[int] = (64, 128, 256), blocks: int = 2) -> nn.Module:
    parts: list[nn.Module] = [*convolution(3, widths[0], 7, 4)]
    for index, width in enumerate(widths):
        if index:
            parts += [*convolution(widths[index - 1], width, 3, 2)]
        parts += [BiMLPBlock(width) for _ in range(blocks)]
    return _classifier(parts, widths[-1])


def _classifier(parts: Sequence[nn.Module], channels: int) -> nn.Module:
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def _image(extent: int) -> tuple[int, ...]:
    return (1, 3, extent, extent)


def _bert() -> nn.Module:
    return WholeText(trainers.create_model("bert_tiny4", length=64), 64)


CASES = {
    "bert_tiny4": Case(_bert, (1, 64), "bnn", vocabulary=30522),
    "deit_tiny": Case(lambda: DeiT(2), _image(224), "fda"),
    "pointnet": Case(lambda: trainers.create_model("pointnet"), (1, 3, 1024), "reactnet"),
    "fsmn": Case(lambda: trainers.create_model("fsmn", features=40, frames=98), (1, 1, 40, 98), "reactnet"),
    "mobilenet_v2": Case(lambda: trainers.create_model("mobilenet_v2"), _image(128), "reactnet"),
    "ssd300": Case(lambda: SSD(16, 6, 20, 3, 300), _image(300), "reactnet"),
    "unet": Case(lambda: UNet(32), _image(128), "xnorpp"),
    "bnext": Case(
        lambda: staged(
            BNextBlock, (32, 64, 128, 256), 2, nn.Sequential(*convolution(3, 32, 3, 2), nn.PReLU(32))
        ),
        _image(128),
        "reactnet",
    ),
    "meliusnet": Case(melius, _image(128), "bnn"),
    "pokebnn": Case(
        lambda: staged(PokeBlock, (64, 128, 256), 3, nn.Sequential(*convolution(3, 64, 7, 4), DPReLU(64))),
        _image(128),
        "bnn",
    ),
    "bimlp": Case(bimlp, _image(128), "reactnet"),
}


def network(name: str, *, binary: bool) -> tuple[nn.Module, Tensor]:
    """The network, float or binary, the same weights each time, and its input."""
    case = CASES[name]
    torch.manual_seed(0)
    made = case.build()
    vary_batch_norms(made)
    if binary:
        trainers.binarize(made, case.algorithm, keep=None if hasattr(made, "stays_float") else _kept(made))
    return made.eval(), case.example()


def _kept(network: nn.Module) -> list[str] | None:
    """The first and the last layer, gates, and what is marked; None where `binarize` decides by itself."""
    names = [
        n for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d))
    ]
    marked = [n for n, m in network.named_modules() if isinstance(m, (Gate, Kept))]
    return [names[0], names[-1], *marked] if marked else None
