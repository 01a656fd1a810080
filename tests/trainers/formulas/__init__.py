"""The formula of each binarization algorithm, in numpy and double precision: slow and obvious.

The generic tests take the file `test_NAME.py` here for the algorithm NAME, which has what `Formula` asks for;
its own tests, of what is the algorithm's alone, stand beside that.
"""

import importlib.util
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from torch import nn

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
Learned = dict[str, np.ndarray]


class Formula(Protocol):
    """What a file here has.

    Attributes:
        NEEDS: how many weights an output channel has at least, for the formula to mean something.
        NAN_STAYS: whether one NaN in a sample makes it NaN in evaluation too; as a rule its sign is -1 there.
        DIFFERS: the variants whose forward in training is not that in evaluation, by design.
    """

    NEEDS: int
    NAN_STAYS: bool
    DIFFERS: tuple[str, ...]

    @staticmethod
    def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
        """What the algorithm makes of the float `layer` at x, (N, C, ...) or (..., C), in evaluation.

        `learned` are the parameters that the algorithm adds to the layer, by name.
        """

    @staticmethod
    def gradients(
        w: np.ndarray, a: np.ndarray, variant: str, learned: Learned
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the sum of what a linear layer of weights w, (O, K), without bias makes of a, (N, K), at the
        beginning of a training: to a and to w."""


def of(algorithm: str) -> Formula:
    """The formula of an algorithm; without one, its line to type."""
    path = Path(__file__).parent / f"test_{algorithm}.py"
    assert path.exists(), f"Write the formula of {algorithm} into {path}, as its neighbours have it."
    spec = importlib.util.spec_from_file_location(f"formula_of_{algorithm}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Formula, module)


def signs(x: np.ndarray, threshold: Any = 0.0, tie: int = 1) -> np.ndarray:
    return np.where(x == threshold, float(tie), np.where(x > threshold, 1.0, -1.0))


def is_transposed(layer: Any) -> bool:
    return isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)


def weights_of(layer: Any) -> np.ndarray:
    """(C_out, C_in / groups, ...), of a transposed convolution too."""
    w = layer.weight.detach().double().numpy()
    if not is_transposed(layer):
        return w
    size = layer.in_channels // layer.groups
    return np.stack([w[g * size : (g + 1) * size, o] for g in range(layer.groups) for o in range(w.shape[1])])


def mean_of_channels(w: np.ndarray) -> np.ndarray:
    """alpha: (O, ...) -> (O)."""
    return np.abs(w).reshape(len(w), -1).mean(1)


def per_channel(layer: Any, values: np.ndarray) -> np.ndarray:
    """(C) so that it broadcasts over a sample of the layer's output."""
    return values.reshape(-1, *(1,) * (0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)))


def add_bias(layer: Any, y: np.ndarray) -> np.ndarray:
    return y if layer.bias is None else y + per_channel(layer, layer.bias.detach().double().numpy())


def products(layer: Any, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The layer's own product of signs, which has to be whole numbers."""
    y = correlate(layer, a, w)
    assert np.array_equal(y, np.round(y))
    return y


def _geometry(layer: Any) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    if layer.padding == "valid":
        pads = [(0, 0) for _ in layer.kernel_size]
    elif layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        pads = [(t // 2, t - t // 2) for t in totals]
    else:
        pads = [(int(p), int(p)) for p in layer.padding]
    return list(layer.stride), list(layer.dilation), pads


def windows(layer: Any, x: np.ndarray) -> Any:
    """Yield the output's extents, each of its positions, and that one's window of x, (N, C, *kernel).

    In the window of a transposed convolution NaN stands where no pixel is met.
    """
    stride, dilation, pads = _geometry(layer)
    if is_transposed(layer):
        yield from _windows_of_transposed(layer, x, stride, dilation)
        return
    padded = np.pad(x, [(0, 0), (0, 0), *pads], mode=MODES[layer.padding_mode])  # type: ignore[call-overload]
    kernel = layer.kernel_size
    extents = [
        (padded.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(len(kernel))
    ]
    for position in np.ndindex(*extents):
        index = [
            slice(
                position[i] * stride[i],
                position[i] * stride[i] + dilation[i] * (kernel[i] - 1) + 1,
                dilation[i],
            )
            for i in range(len(kernel))
        ]
        yield extents, position, padded[(slice(None), slice(None), *index)]


def _windows_of_transposed(layer: Any, x: np.ndarray, stride: list[int], dilation: list[int]) -> Any:
    kernel, padding = layer.kernel_size, layer.padding
    extents = [
        (n - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + layer.output_padding[i] + 1
        for i, n in enumerate(x.shape[2:])
    ]
    for position in np.ndindex(*extents):
        window = np.full((*x.shape[:2], *kernel), np.nan)
        for tap in np.ndindex(*kernel):
            places = [position[i] + padding[i] - tap[i] * dilation[i] for i in range(len(kernel))]
            if any(place % stride[i] for i, place in enumerate(places)):
                continue
            pixel = tuple(place // stride[i] for i, place in enumerate(places))
            inside = all(0 <= p < n for p, n in zip(pixel, x.shape[2:], strict=True))
            window[(..., *tap)] = x[(..., *pixel)] if inside else 0
        yield extents, position, window


def correlate(layer: Any, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    if isinstance(layer, nn.Linear):
        return np.einsum("...k,ok->...o", x, w)
    out = None
    per_group = w.shape[0] // layer.groups
    for extents, position, window in windows(layer, x):
        if out is None:
            out = np.zeros((x.shape[0], w.shape[0], *extents))
        for o in range(w.shape[0]):
            first = o // per_group * w.shape[1]
            part = window[:, first : first + w.shape[1]] * w[o]
            out[(slice(None), o, *position)] = np.nansum(part.reshape(len(part), -1), 1)
    assert out is not None
    return out


def clip(x: np.ndarray, variant: str) -> np.ndarray:
    """Eq. 12: 1 where |x| < 1, as released where |x| <= 1."""
    return ((np.abs(x) < 1) | ((np.abs(x) == 1) & (variant == "released"))).astype(float)


def poly(x: np.ndarray) -> np.ndarray:
    """Eq. 16: 2 - 2|x| where |x| <= 1."""
    return np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0)


def through_signs(
    of_a: np.ndarray, of_w: np.ndarray, signs_a: np.ndarray, signs_w: np.ndarray, scale: Any = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of sum(scale * (sign(a) @ sign(w).T)), scale broadcast to (N, O), by the derivatives."""
    scale = np.broadcast_to(scale, (len(signs_a), len(signs_w)))
    return of_a * (scale @ signs_w), of_w * (scale.T @ signs_a)
