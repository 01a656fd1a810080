"""Layers as people wrap them in PyTorch: in bits and exact, or float with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.bibench_tvm.verified import verified


def bits(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


class Sign(nn.Hardtanh):
    """A subclass of another activation, whose forward alone says what it is."""

    def forward(self, x: Tensor) -> Tensor:
        soft = super().forward(x)
        return bits(x) - soft.detach() + soft


class Where(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(torch.ge(x, 0), self.one, -self.one)


class Binary(nn.Conv2d):
    """Binarizes in `_conv_forward`, as a subclass may."""

    sign = staticmethod(bits)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Any) -> Tensor:
        alpha = weight.abs().mean((1, 2, 3), keepdim=True)
        return super()._conv_forward(self.sign(input), alpha * self.sign(weight), bias)


class BinaryLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(Sign()(x), self.weight.sign() * self.weight.abs().mean(1, keepdim=True), self.bias)


class Quantizer(nn.Module):
    """As `parametrize` registers it on a weight."""

    def forward(self, w: Tensor) -> Tensor:
        return bits(w) * w.abs().mean((1, 2, 3), keepdim=True)


class Functional(nn.Module):
    """A functional convolution whose weights are computed from parameters."""

    def __init__(
        self,
        weights: Callable[[nn.Parameter], Tensor],
        activation: Callable[[Tensor], Tensor] = bits,
        **options: Any,
    ) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(6, 8, 3, 3))
        self.weights, self.activation, self.options = weights, activation, options

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.activation(x), self.weights(self.raw), **self.options)


def binary(layer: Any) -> Any:
    layer.weight.data = torch.where(layer.weight.data >= 0, 0.3, -0.3)
    return layer


def ulps(w: Tensor) -> Tensor:
    """+-alpha but for a few units in the last place, as other orders of summing leave them."""
    alpha = torch.tensor(0.3)
    steps = torch.arange(w.numel()).reshape(w.shape) % 5 - 2
    near = (alpha.view(torch.int32) + steps).to(torch.int32).view(torch.float32)
    return torch.where(w >= 0, near, -near)


def parametrized() -> nn.Module:
    layer = nn.Conv2d(8, 6, 3)
    parametrize.register_parametrization(layer, "weight", Quantizer())
    return nn.Sequential(Where(), layer)


def with_norm(norm: Any) -> nn.Module:
    return nn.Sequential(Sign(), norm(binary(nn.Conv2d(8, 6, 3))))


def by_unfold(x: Tensor, w: Tensor) -> Tensor:
    columns = F.unfold(bits(x), 3)
    return (w.reshape(6, -1) @ columns).reshape(1, 6, 4, 4)


class OfMatrix(nn.Module):
    def __init__(self, product: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("w", bits(torch.randn(shape)) * 0.5)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.w)


def scaled(w: Tensor) -> Tensor:
    return w.sign() * w.abs().mean((1, 2, 3), keepdim=True)


Make = Callable[[], nn.Module]
Product = Callable[[Tensor, Tensor], Tensor]


def of_weights(
    weights: Callable[[Any], Tensor], activation: Callable[[Tensor], Tensor] = bits, **options: Any
) -> Make:
    return lambda: Functional(weights, activation, **options)


def of_matrix(product: Product, *shape: int) -> Make:
    return lambda: OfMatrix(product, shape)


def behind(*before: nn.Module, **options: Any) -> Make:
    """A binary convolution of 3 x 3, or as the options say."""
    kernel = options.pop("kernel", 3)
    return lambda: nn.Sequential(*before, binary(nn.Conv2d(8, 6, kernel, **options)))


def around(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1), mode="circular")


def two_bits(x: Tensor) -> Tensor:
    return torch.round(x.clamp(0, 1) * 3) / 3


def matrix_norm(w: Tensor) -> Tensor:
    flat = w.flatten(1)
    return bits(flat).mul(flat.norm(1, 1, True) / 72).view_as(w)


def straight_through(w: Tensor) -> Tensor:
    return (scaled(w) - w.clamp(-1, 1)).detach() + w.clamp(-1, 1)


NETWORKS: dict[str, Make] = {
    "circular": behind(Sign(), padding=(1, 2), padding_mode="circular"),
    "reflect": behind(Sign(), padding=(1, 2), padding_mode="reflect"),
    "replicate": behind(Sign(), padding=(1, 2), padding_mode="replicate"),
    "circular, strided, grouped": behind(Sign(), padding=1, padding_mode="circular", stride=2, groups=2),
    "circular, 1-D": lambda: nn.Sequential(
        nn.Flatten(2), Sign(), binary(nn.Conv1d(8, 6, 3, padding=2, padding_mode="circular"))
    ),
    "circular, 2 bits": of_weights(lambda w: scaled(w), lambda x: around(two_bits(x))),
    "same, even": behind(Sign(), kernel=(2, 4), padding="same"),
    "same, circular": behind(Sign(), kernel=(2, 3), padding="same", padding_mode="circular"),
    "ReflectionPad2d": behind(Sign(), nn.ReflectionPad2d(1)),
    "padded before the sign": behind(nn.ReplicationPad2d(1), Where()),
    "ZeroPad2d before the sign": behind(nn.ZeroPad2d(1), Where()),
    "ZeroPad2d behind the sign": behind(Where(), nn.ZeroPad2d((1, 0, 2, 1))),
    "a subclass's _conv_forward": lambda: Binary(8, 6, 3, padding=1),
    "a subclass, circular": lambda: Binary(8, 6, 3, padding=1, padding_mode="circular"),
    "a subclass of Linear": lambda: nn.Sequential(nn.Flatten(2), BinaryLinear(36, 5)),
    "parametrize": parametrized,
    "weight_norm": lambda: with_norm(lambda c: parametrizations.weight_norm(c, dim=0)),
    "old weight_norm": lambda: with_norm(nn.utils.weight_norm),
    "weights of sign": of_weights(scaled),
    "weights of sign, one alpha": of_weights(lambda w: torch.sign(w) * w.abs().mean()),
    "centred weights": of_weights(lambda w: bits(w - w.mean((1, 2, 3), keepdim=True))),
    "weights straight through": of_weights(straight_through),
    "weights of tanh": of_weights(lambda w: torch.sign(torch.tanh(w)) * torch.tanh(w).abs().mean()),
    "weights of a few ulp": of_weights(ulps),
    "weights of two halves": of_weights(lambda w: torch.cat([bits(w[:3]), bits(w[3:]) * 2])),
    "weights of a stack": of_weights(lambda w: torch.stack([bits(o) * o.abs().mean() for o in w])),
    "weights of a matrix": of_weights(matrix_norm),
    "weights of an einsum": of_weights(
        lambda w: torch.einsum("oihw,o->oihw", bits(w), w.abs().amax((1, 2, 3)))
    ),
    "weights in halves": of_weights(lambda w: (bits(w).half() * 0.3).float()),
    "weights turned": of_weights(lambda w: bits(w).flip(2).transpose(2, 3).contiguous()),
    "weights expanded": of_weights(lambda w: bits(w[:, :1]).expand(6, 8, 3, 3)),
    "weights in bytes": of_weights(lambda w: (w >= 0).to(torch.uint8).mul(2).float() - 1),
    "weights shifted out": of_weights(lambda w: ((((w >= 0).int() << 3) >> 3) & 1).float() * 2 - 1),
    "sign and bias": of_weights(scaled, bias=torch.arange(6.0)),
    "dilated": of_weights(scaled, dilation=2, padding=2),
    "an unfolded one": of_matrix(by_unfold, 6, 72),
    "a tensordot": of_matrix(lambda x, w: torch.tensordot(bits(x), w, ([1], [0])), 8, 5),
    "an einsum": of_matrix(lambda x, w: torch.einsum("bchw,oc->bohw", bits(x), w), 5, 8),
    "addmm": of_matrix(lambda x, w: torch.addmm(torch.ones(5), bits(x.flatten(0, 2)), w.t()), 5, 6),
    "baddbmm": of_matrix(lambda x, w: torch.baddbmm(torch.ones(1, 8, 5), bits(x.flatten(2)), w[None]), 36, 5),
    "a linear one over channels": of_matrix(
        lambda x, w: F.linear(bits(x).movedim(1, -1), w).movedim(-1, 1), 5, 8
    ),
    "mv": of_matrix(lambda x, w: torch.mv(bits(x.reshape(8, 36)), w), 36),
    "addmv": of_matrix(lambda x, w: torch.addmv(torch.ones(8), bits(x.reshape(8, 36)), w), 36),
    "a matrix from the left": of_matrix(lambda x, w: w @ bits(x.flatten(2)), 5, 8),
    "a stack of one matrix": of_matrix(lambda x, w: w @ bits(x.flatten(2)), 1, 1, 5, 8),
    "a matrix that meets a sum": of_matrix(lambda x, w: w @ (bits(x) + 0.5 * bits(x - 0.3)).flatten(2), 5, 8),
    "a linear one of activations": of_matrix(lambda x, w: F.linear(w, bits(x.reshape(36, 8))), 5, 8),
    "conv1d over rows": of_matrix(lambda x, w: F.conv1d(bits(x.flatten(2)), w, padding=1), 5, 8, 3),
    "padded with half": of_matrix(
        lambda x, w: F.conv2d(F.pad(bits(x), (1, 1, 1, 1), value=0.5), w), 5, 8, 3, 3
    ),
}
# What has no kernel of bits, and why.
FLOATS: dict[str, tuple[Make, str]] = {
    "conv3d": (
        of_matrix(lambda x, w: F.conv3d(bits(x[:, :, None]), w), 5, 8, 1, 3, 3),
        "conv3d has no binary kernel",
    ),
    "weights of the input": (
        of_matrix(lambda x, w: F.conv2d(bits(x), w * x.mean().sign()), 5, 8, 3, 3),
        "its weights are computed at run time",
    ),
    "a circular float": (
        behind(padding=1, padding_mode="circular"),
        "its input is not binary: it comes from concat, one part of which is",
    ),
    "a circular average": (
        of_matrix(lambda x, w: F.conv2d(F.avg_pool2d(around(bits(x)), 3), w), 5, 8, 1, 1),
        "its input is not binary: it comes from avg_pool2d",
    ),
    "float weights": (
        lambda: nn.Sequential(Sign(), nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular")),
        "its weights are not +-alpha, nor alpha s + beta: output channel 0 has 72 different values",
    ),
    "a vector": (
        of_matrix(lambda x, w: bits(x.flatten(2)) @ w, 36),
        "a product with a vector has no binary kernel",
    ),
    "constant matrices": (
        of_matrix(lambda x, w: bits(x.reshape(2, 4, 36)) @ w, 2, 36, 5),
        "one of its operands is a batch of constant matrices, which has no binary kernel",
    ),
}
ONNX = "circular", "reflect", "replicate", "weights of sign", "an einsum", "baddbmm", "a matrix from the left"


class Side(nn.Module):
    """Networks of one layer each, side by side."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [network(x) for network in self.networks]


def compiled(networks: dict[str, Callable[[], nn.Module]], source: str, folder: Path) -> dict[str, Any]:
    """The layer of each network in an artifact, which is verified."""
    torch.manual_seed(0)
    model, x = Side([make() for make in networks.values()]).eval(), torch.randn(1, 8, 6, 6)
    return verified(model, x, networks, source, folder)[1]


@pytest.mark.parametrize("source", ["torch", "onnx"])
def test_wrapped_layers_are_bits(source: str, tmp_path: Path) -> None:
    kept = {name: make for name, make in NETWORKS.items() if source == "torch" or name in ONNX}
    found = compiled(kept, source, tmp_path)
    assert not {name: layer["reason"] for name, layer in found.items() if not layer["binarized"]}
    if source == "torch":
        assert "rounding in the source moves its weights" in found["weights of a few ulp"]["notes"]


def test_others_are_float_with_the_reason(tmp_path: Path) -> None:
    found = compiled({name: make for name, (make, _) in FLOATS.items()}, "torch", tmp_path)
    wrong = {n: s["reason"] for n, s in found.items() if s["binarized"] or FLOATS[n][1] not in s["reason"]}
    assert not wrong
