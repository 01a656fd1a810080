"""The binary operator that all algorithms share: o = scale(sign(a) * sign(w)) + bias.

An algorithm (one file in `trainers/algorithms/`) says only what the columns of Table 6 of the paper say: how
weights are redistributed before their sign, which derivative stands in for that of the sign, and what
scales the result. `BinaryLayer` does the rest, alike for Conv1d, Conv2d, their transposed ones and Linear.

In evaluation, and so in whatever is exported, a layer computes exactly

    a = where(x >= t, 1, -1)      w = where(w >= 0, 1, -1)      y = conv(a, w)      y * scale + bias

where y holds exact integers, padding is of `a` and with 0, and there is neither an autograd.Function nor
control flow that depends on data. An algorithm may put two other numbers in the place of 1 and -1
(`input_values`, `weight_values`). This is what the compiler looks for. Where a gradient is asked for in
evaluation, the same values have the gradients of training; what is exported has none.

In training NaN stays NaN, which shows in the loss; in evaluation a comparison makes it -1."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.registry import Registry
from trainers.routing import RoutedWeight, in_a_forward

Derivative = Callable[[Tensor], Tensor]
FloatLayer = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear

VARIANTS = ("paper", "released")
FEW = 32  # so many signs can all be the same by chance
algorithms: Registry[type["BinaryLayer"]] = Registry("algorithm")


def clip(x: Tensor) -> Tensor:
    """Derivative of the straight-through estimator that saturates, eq. 12: 1 where |x| < 1, else 0."""
    return x.abs().lt_(1)  # in place: a cast from bool takes ten times as long


def closed_clip(x: Tensor) -> Tensor:
    """The same as it was released: 1 where |x| <= 1, else 0."""
    return x.abs().le_(1)


def poly(x: Tensor) -> Tensor:
    """Derivative of Bi-Real's piecewise polynomial (eqs 16, 24, 29): 2 - 2|x| where |x| <= 1, else 0."""
    return x.abs().mul_(-2).add_(2).clamp_min_(0)  # in place: three times as fast


def identity(x: Tensor) -> Tensor:
    """Derivative of the straight-through estimator that does not saturate: 1."""
    return torch.ones_like(x)


def _compare(x: Tensor, limit: Tensor | float, tie: int) -> Tensor:
    """+1 where x > limit, and where it is equal if `tie` is 1; else -1; in x's dtype."""
    if _exporting() or torch.compiler.is_compiling() or x.is_meta:  # what is looked at, and not computed
        signs = torch.where(x >= limit if tie > 0 else x > limit, 1.0, -1.0)
        return signs if signs.dtype == x.dtype else signs.to(x.dtype)  # a cast of float32 would be exported
    # Comparisons in place give numbers; the three passes take a tenth of the time of a `where`.
    y = x + torch.zeros_like(limit, dtype=x.dtype) if isinstance(limit, Tensor) else x.clone()
    return (y.ge_(limit) if tie > 0 else y.gt_(limit)).mul_(2).sub_(1)


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The numbers of an algorithm that a sweep may vary, each with its default: plain values. Here none.

    An algorithm that has some derives its own from this, names it in `BinaryLayer.hyperparameters_type` and
    takes it as its constructor's third argument; its `__post_init__` raises a ValueError, a sentence, for
    values that make no sense.
    """


class _SurrogateSign(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, derivative: Derivative, tie: int, keep_nan: bool) -> Tensor:
        if not keep_nan:
            return _compare(x, 0.0, tie)
        # Rounded clips keep NaN; four passes in place take a fifth of the time of three `where`.
        if tie > 0:
            return x.clamp(-1, 0).floor_().mul_(2).add_(1)
        return x.clamp(0, 1).ceil_().mul_(2).sub_(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.derivative = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.derivative(x), None, None, None


class _DivideGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, by: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (by,) = ctx.saved_tensors
        return torch.where(by == 0, 0, gradient / by), None


def divide_gradient(x: Tensor, by: Tensor) -> Tensor:
    """`x` itself, whose gradient is divided by `by` (which broadcasts to x): a scale that the forward
    multiplies with and the released code leaves out of its gradient. 0 where `by` is 0."""
    return _DivideGradient.apply(x, by) if x.requires_grad and not _exporting() else x


def _exporting() -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def sign(
    x: Tensor, derivative: Derivative, *, training: bool, threshold: Tensor | None = None, tie: int = 1
) -> Tensor:
    """The sign of `x`, or of `x - threshold`, as +1 and -1 in x's shape and dtype; `tie` is the sign of 0.

    Its gradient is `derivative(x - threshold)`, to the threshold with a minus (eq. 22). In training NaN stays
    NaN, in evaluation it is -1. What is exported is a comparison and has no gradient. For IEEE numbers
    x - t > 0 is x > t, so all give the same signs.
    """
    wanted = torch.is_grad_enabled() and not _exporting()
    if training or (wanted and any(isinstance(v, Tensor) and v.requires_grad for v in (x, threshold))):
        # The gradient of x - t to t would be negated before it is summed.
        shifted = x if threshold is None else x + (-threshold)
        return _SurrogateSign.apply(shifted, derivative, tie, training)
    return _compare(x, 0.0 if threshold is None else threshold, tie)


class BinaryLayer(nn.Module):
    """A Conv1d, Conv2d, transposed one or Linear whose operands are +1 and -1. The default is BNN: no scale,
    clip on both.

    Takes over the parameters of `layer` under their own names, so that float weights load into it. Input and
    output have the shapes of the float layer: (N, C, L) or (C, L), (N, C, H, W) or (C, H, W), (..., C).

    `weight` are the float weights that are trained. Code that reads them while a module runs - F.linear(x,
    layer.weight) - computes the binary layer, or warns that it computes with float weights (`RoutedWeight`).
    A state dict that has none of the algorithm's own parameters is one of float weights: they keep the values
    that they have. Derivatives and gradients per sample (torch.func) work in training and evaluation.

    Attributes for subclasses:
        name: what the layer is called in its network, for messages.
        variant: "paper" or "released".
        file_digest: of the file of an algorithm that is none of ours, for `load_algorithm` to set.
        hyperparameters: of `hyperparameters_type`.
        spatial: number of spatial dimensions, 2, 1 or (Linear) 0.
        is_transposed: whether it is a transposed convolution. To an algorithm its weights are those of any
            other, (C_out, C_in / groups, ...).
        channel_dim: the dimension of the channels, counted from the end.
        sample_dims: all dimensions of one sample.
        float_weights: whether the weights are multiplied as they are, without a scale, as in the first of
            two stages of training.
    """

    input_derivative: Derivative = staticmethod(clip)
    weight_derivative: Derivative = staticmethod(clip)
    file_digest = ""
    hyperparameters_type: type[Hyperparameters] = Hyperparameters
    hyperparameters: Hyperparameters

    def __init__(
        self, layer: FloatLayer, variant: str = "paper", hyperparameters: Hyperparameters | None = None
    ) -> None:
        super().__init__()
        self.name = ""
        self.variant = variant
        self.hyperparameters = hyperparameters or self.hyperparameters_type()
        if variant == "released":  # the boundary of the clip is part of what was released
            for operand in ("input_derivative", "weight_derivative"):
                if getattr(self, operand) is clip:
                    setattr(self, operand, closed_clip)
        self.weight = layer.weight
        self.bias = layer.bias
        self.spatial = layer.weight.dim() - 2
        self.is_transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
        self.channel_dim = -1 - self.spatial
        self.sample_dims = tuple(range(self.channel_dim, 0))
        self.groups = 1 if isinstance(layer, nn.Linear) else layer.groups
        self.out_channels = self.latent.shape[0]
        self.in_channels = self.latent.shape[1] * self.groups
        self.description = layer.extra_repr()
        if not isinstance(layer, nn.Linear):
            self.kernel_size: tuple[int, ...] = layer.kernel_size
            self.stride: tuple[int, ...] = layer.stride
            self.dilation: tuple[int, ...] = layer.dilation
            self._read_padding(layer)
            self.output_padding: tuple[int, ...] = layer.output_padding
            self.declared_output_padding = layer.output_padding
            self.declared = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self.looked_at_input = False
        self.float_weights = False
        self.train(layer.training)

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name == "weight" and isinstance(value, Tensor) and in_a_forward():
            return RoutedWeight.of(value, self)
        return value

    @property
    def latent(self) -> Tensor:
        """The float weights, for the layer itself: (C_out, C_in / groups, ...)."""
        if "weight" in self._parameters:
            weight: Tensor = nn.Module.__getattr__(self, "weight")  # type: ignore[assignment]
        else:
            weight = self.weight  # a parametrization that was put on the binary layer
        return self._turned(weight) if self.is_transposed else weight

    def _turned(self, weight: Tensor) -> Tensor:
        """Weights (C_in, C_out / groups, ...) as (C_out, C_in / groups, ...), and back."""
        return weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)

    def _read_padding(self, layer: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d) -> None:
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

    def channel_weight_alpha(self, weight: Tensor) -> Tensor:
        """The same, broadcastable to the weights."""
        return weight.detach().abs().mean(tuple(range(1, weight.dim())), keepdim=True)

    def takes_rectified(self) -> bool:
        """Whether the layer, of which is now known that its input is never negative, does not want that
        mended: it has learned thresholds, or another set of values for such inputs."""
        return getattr(self, "threshold", None) is not None

    def redistribute(self, weight: Tensor) -> Tensor:
        """The weights whose sign is taken; the same shape."""
        return weight

    def sign_input(self, x: Tensor) -> Tensor:
        """The activations as +1 and -1."""
        return sign(x, self.input_derivative, training=self.training)

    def sign_weight(self, weight: Tensor) -> Tensor:
        """The redistributed weights as +1 and -1."""
        return sign(weight, self.weight_derivative, training=self.training)

    def input_values(self, signs: Tensor) -> Tensor:
        """The two numbers, of the layer, that the signs of the activations stand for."""
        return signs

    def weight_values(self, signs: Tensor) -> Tensor:
        """The two numbers, of each output channel, that the signs of the weights stand for."""
        return signs

    def scale(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The integers `y` times the scaling factors; `x` is the layer's input, `weight` redistributed."""
        return y

    def count_scales(self, extents: Sequence[int]) -> tuple[int, int] | None:
        """How many numbers the scales of weights are, and how many products with a scale each element of the
        output takes; `extents` are those of its spatial dimensions. None where the algorithm does not say."""
        return (0, 0) if type(self).scale is BinaryLayer.scale else None

    def set_progress(self, progress: float, epochs: int | None = None) -> None:
        """Advance what follows a schedule to `progress`, 0 at the start of the training and 1 at its end.

        `epochs` are those of the whole training, for a schedule that counts them.
        """

    def operate(self, x: Tensor, weight: Tensor) -> Tensor:
        """The float layer's own operation without its bias."""
        if self.spatial == 0:
            return F.linear(x, weight)
        if self.is_transposed:
            upsample = F.conv_transpose1d if self.spatial == 1 else F.conv_transpose2d
            more = self.output_padding
            return upsample(
                x, self._turned(weight), None, self.stride, self.padding, more, self.groups, self.dilation
            )
        convolve: Callable[..., Tensor] = F.conv1d if self.spatial == 1 else F.conv2d
        return convolve(self.pad(x), weight, None, self.stride, self.padding, self.dilation, self.groups)

    def offset(self, bias: Tensor) -> Tensor:
        """What is added to the scaled integers: the bias, (C_out), broadcastable."""
        return self.per_channel(bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """output_size: of a transposed convolution, as `nn.ConvTranspose2d` takes it."""
        if self.is_transposed:
            more: Sequence[int] = self.declared_output_padding
            if output_size is not None:
                more = nn.ConvTranspose2d._output_padding(
                    self,  # type: ignore[arg-type]
                    x,
                    list(output_size),
                    list(self.stride),
                    list(self.padding),
                    list(self.kernel_size),
                    self.spatial,
                    list(self.dilation),
                )
            if tuple(more) != self.output_padding:
                self.output_padding = tuple(more)
        return self.compute(x, self.bias)

    def compute(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The layer with another bias than its own."""
        weight = self.redistribute(self.latent)
        a = self.sign_input(x)
        if not torch.compiler.is_compiling() and not self.looked_at_input:
            self._look_at_input(a)
        a = self.input_values(a)
        if self.float_weights:
            y = self.operate(a, self.latent)
        else:
            y = self.scale(self.operate(a, self.weight_values(self.sign_weight(weight))), x, weight)
        return y if bias is None else y + self.offset(bias)

    def _look_at_input(self, a: Tensor) -> None:
        """At the first batch: warn if all signs are the same, as after a ReLU."""
        if torch.jit.is_tracing() or not isinstance(a, Tensor) or a.is_meta or a.numel() < FEW:
            return
        try:
            same = [value for value in (1, -1) if bool((a.detach() * value > 0).all())]
        except RuntimeError:
            return  # inside torch.func.vmap, where a value cannot be looked at
        self.looked_at_input = True
        if same:
            warnings.warn(
                f"The binary layer {self.name or type(self).__name__} gets an input whose signs are all "
                f"{same[0]:+d}, so its output does not depend on it. After a ReLU, a sigmoid or on "
                f"pixels from 0 "
                "on every sign is +1: put a Hardtanh or a normalisation in their place.",
                stacklevel=2,
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        own = {
            prefix + key: value for key, value in self.state_dict().items() if key not in ("weight", "bias")
        }
        if own and prefix + "weight" in state_dict and not own.keys() & state_dict.keys():
            warnings.warn(
                f"The weights that are loaded are those of a float network: the {type(self).__name__} "
                f"layers keep "
                f"their own {', '.join(sorted({key.removeprefix(prefix) for key in own}))} as they are.",
                stacklevel=2,
            )
            state_dict |= own
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        own = dataclasses.asdict(self.hyperparameters).items()
        return ", ".join(
            [self.description, f"variant={self.variant}", *(f"{name}={value}" for name, value in own)]
        )
