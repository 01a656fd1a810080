"""Which layers that multiply have their weights in bits: those whose kernel loses little by it.

A kernel decodes the weights of a block of output channels before it computes the block. That costs a few
instructions for each weight, beside one for each pixel that the weight meets; and it saves reading four bytes
for each, which takes longer where they are too many to stay in a cache.
"""

from __future__ import annotations

import math

import numpy as np

from relay_passes.ir.weights import TwoLevels, two_levels
from relay_passes.kernels.transformed_weights import of_input
from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.targets.kernel_target import KernelTarget

ENOUGH_PIXELS = 16
"""From so many on that each weight meets, decoding takes a fifth of a layer's time at most."""
BEYOND_CACHES = 1 << 18
"""Weights, of four bytes each, from which on it is memory that a layer with fewer pixels waits for."""


def in_bits(weights: np.ndarray, conv: Convolution, target: KernelTarget) -> TwoLevels | str | None:
    """weights: float32 or int8, [O, KH, KW, C / groups]. None where an output channel has more than two
    values; where it has two and they are better stored as they are, the reason, as the end of a sentence."""
    levels = two_levels(weights)
    if levels is None:
        return None
    if depthwise.is_depthwise(conv, packed=False):
        return f"there are only {weights.size:,} of them, in a depthwise layer"
    if of_input(weights, conv, target):
        return f"there are only {weights.size:,} of them"  # and Winograd's method has others
    pixels = math.prod(conv.out_shape[:3])
    if pixels < ENOUGH_PIXELS and weights.size < BEYOND_CACHES:
        meets = "one pixel" if pixels == 1 else f"{pixels} pixels"
        return f"each of them meets {meets} only, and to decode {weights.size:,} takes longer than that"
    return levels


def bytes_in_bits(weights: np.ndarray) -> int:
    """Of the bits of each output channel, and of its two values."""
    return len(weights) * (-(-weights[0].size // 8) + 2 * weights.itemsize)
