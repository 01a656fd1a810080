"""Which maxima and minima over pixels the kernel of a layer keeps, instead of an image."""

from __future__ import annotations

import math
from typing import Any

from tvm import relax

from relay_passes.ir.operators import BinaryConvolution, attributes_of
from relay_passes.ir.rewrite import is_call, shape_of
from schedules.kernels.depthwise import is_depthwise
from schedules.parts.epilogue import Extreme


def extreme_of_pixels(value: relax.Expr, layer: Any) -> Extreme | None:
    """Whether this is the largest or the smallest of each channel over the pixels of each image, or of each
    row, of a layer of bits whose kernel is in tiles."""
    if not is_call(value, "relax.max", "relax.min") or value.attrs.axis is None:
        return None
    if not is_call(layer, "bibench.binary_convolution"):
        return None
    conv = attributes_of(layer, BinaryConvolution).conv
    if is_depthwise(conv, packed=True):
        return None
    shape = shape_of(value.args[0])
    first, *_ = axes = sorted(int(axis) % len(shape) for axis in value.attrs.axis)
    if axes != list(range(first, len(shape) - 1)):
        return None
    if math.prod(shape[:first]) not in (conv.batch, conv.batch * conv.out_height):
        return None
    return "max" if is_call(value, "relax.max") else "min"
