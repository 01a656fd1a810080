"""The binary operator that all algorithms share: o = scale(sign(a) * sign(w)) + bias.

An algorithm (one file in `trainers/algorithms/`) says only what the columns of Table 6 of the paper say: how
weights are redistributed before their sign, which derivative stands in for that of the sign, and what
scales the result. `BinaryLayer` does the rest, alike for Conv1d, Conv2d and Linear.

In evaluation, and so in whatever is exported, a layer computes exactly

    a = where(x >= t, 1, -1)      w = where(w >= 0, 1, -1)      y = conv(a, w)      y * scale + bias

where y holds exact integers, padding is of `a` and with 0, and there is neither an autograd.Function nor
control flow that depends on data. This is what the compiler looks for."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.registry import Registry

Derivative = Callable[[Tensor], Tensor]
FloatLayer = nn.Conv1d | nn.Conv2d | nn.Linear

VARIANTS = ("paper", "released")
algorithms: Registry[type["BinaryLayer"]] = Registry("algorithm")


def clip(x: Tensor) -> Tensor:
    """Derivative of the straight-through estimator that saturates (eq. 12): 1 where |x| <= 1, else 0.

    As in the released code; eq. 12 leaves |x| = 1 out, where only a Hardtanh puts activations and stops their
    gradient itself.
    """
    return (x.abs() <= 1).to(x.dtype)


def poly(x: Tensor) -> Tensor:
    """Derivative of Bi-Real's piecewise polynomial (eqs 16, 24, 29): 2 - 2|x| where |x| <= 1, else 0."""
    return (2 - 2 * x.abs()).clamp_min(0)


def identity(x: Tensor) -> Tensor:
    """Derivative of the straight-through estimator that does not saturate: 1."""
    return torch.ones_like(x)


def _plus_minus_one(positive: Tensor, dtype: torch.dtype) -> Tensor:
    signs = torch.where(positive, 1.0, -1.0)
    return signs if signs.dtype == dtype else signs.to(dtype)  # a cast of float32 would show up in exports


class _SurrogateSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, derivative: Derivative, tie: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = derivative
        return _plus_minus_one(x >= 0 if tie > 0 else x > 0, x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.derivative(x), None, None


def sign(
    x: Tensor, derivative: Derivative, *, training: bool, threshold: Tensor | None = None, tie: int = 1
) -> Tensor:
    """The sign of `x`, or of `x - threshold`, as +1 and -1 in x's shape and dtype; `tie` is the sign of 0.

    In training its gradient is `derivative(x - threshold)`, to the threshold with a minus (eq. 22). In
    evaluation it is a comparison and has no gradient. For IEEE numbers x - t > 0 is x > t, so both give the
    same signs.
    """
    if training:
        return _SurrogateSign.apply(x if threshold is None else x - threshold, derivative, tie)
    limit = 0.0 if threshold is None else threshold
    return _plus_minus_one(x >= limit if tie > 0 else x > limit, x.dtype)


class BinaryLayer(nn.Module):
    """A Conv1d, Conv2d or Linear whose operands are +1 and -1. The default is BNN: no scale, clip on both.

    Takes over the parameters of `layer` under their own names, so that float weights load into it. Input and
    output have the shapes of the float layer: (N, C, L) or (C, L), (N, C, H, W) or (C, H, W), (..., C).

    Attributes for subclasses:
        variant: "paper" or "released".
        spatial: number of spatial dimensions, 2, 1 or (Linear) 0.
        channel_dim: the dimension of the channels, counted from the end.
        sample_dims: all dimensions of one sample.
    """

    input_derivative: Derivative = staticmethod(clip)
    weight_derivative: Derivative = staticmethod(clip)

    def __init__(self, layer: FloatLayer, variant: str = "paper") -> None:
        super().__init__()
        self.variant = variant
        self.weight = layer.weight
        self.bias = layer.bias
        self.spatial = layer.weight.dim() - 2
        self.channel_dim = -1 - self.spatial
        self.sample_dims = tuple(range(self.channel_dim, 0))
        self.out_channels = layer.weight.shape[0]
        self.groups = 1 if isinstance(layer, nn.Linear) else layer.groups
        self.in_channels = layer.weight.shape[1] * self.groups
        self.description = layer.extra_repr()
        if not isinstance(layer, nn.Linear):
            self.kernel_size: tuple[int, ...] = layer.kernel_size
            self.stride: tuple[int, ...] = layer.stride
            self.dilation: tuple[int, ...] = layer.dilation
            self._read_padding(layer)
        self.train(layer.training)

    def _read_padding(self, layer: nn.Conv1d | nn.Conv2d) -> None:
        """Split the layer's padding into what the convolution takes and what `F.pad` has to do before it."""
        pairs: list[tuple[int, int]]
        if layer.padding == "valid":
            pairs = [(0, 0)] * self.spatial
        elif layer.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            pairs = [(total // 2, total - total // 2) for total in totals]
        else:
            pairs = [(int(p), int(p)) for p in layer.padding]
        self.pad_mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        if self.pad_mode == "constant" and all(before == after for before, after in pairs):
            self.padding: tuple[int, ...] = tuple(before for before, _ in pairs)
            self.explicit_padding: list[int] = []
        else:
            self.padding = (0,) * self.spatial
            self.explicit_padding = [p for pair in reversed(pairs) for p in pair]

    def pad(self, x: Tensor) -> Tensor:
        """Pad the spatial dimensions by what the convolution itself cannot."""
        return F.pad(x, self.explicit_padding, mode=self.pad_mode) if any(self.explicit_padding) else x

    def per_channel(self, values: Tensor) -> Tensor:
        """One value per channel, shaped (C), (C, 1) or (C, 1, 1) so that it broadcasts over a sample."""
        return values.reshape(-1, *(1,) * self.spatial)

    def channel_alpha(self, weight: Tensor) -> Tensor:
        """The statistic mean |w| of each output channel, broadcastable, without gradient."""
        return self.per_channel(weight.detach().abs().flatten(1).mean(1))

    def redistribute(self, weight: Tensor) -> Tensor:
        """The weights whose sign is taken; the same shape."""
        return weight

    def sign_input(self, x: Tensor) -> Tensor:
        """The activations as +1 and -1."""
        return sign(x, self.input_derivative, training=self.training)

    def sign_weight(self, weight: Tensor) -> Tensor:
        """The redistributed weights as +1 and -1."""
        return sign(weight, self.weight_derivative, training=self.training)

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The integers `y` times the scaling factors; `x` is the layer's input, `weight` redistributed."""
        return y

    def set_progress(self, progress: float) -> None:
        """Advance what follows a schedule to `progress`, 0 at the start of the training and 1 at its end."""

    def operate(self, x: Tensor, weight: Tensor) -> Tensor:
        """The float layer's own operation without its bias."""
        if self.spatial == 0:
            return F.linear(x, weight)
        convolve: Callable[..., Tensor] = F.conv1d if self.spatial == 1 else F.conv2d
        return convolve(self.pad(x), weight, None, self.stride, self.padding, self.dilation, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.redistribute(self.weight)
        y = self.scale(self.operate(self.sign_input(x), self.sign_weight(weight)), x, weight)
        return y if self.bias is None else y + self.per_channel(self.bias)

    def extra_repr(self) -> str:
        return f"{self.description}, variant={self.variant}"
