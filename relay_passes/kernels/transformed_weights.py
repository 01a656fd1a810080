"""Which float layers are computed by Winograd's method: those where it is faster, and whose sums have no
exact ties that its rounding would decide.

Its numbers are quotients, so sums that are exact in any other order are so no more. Where weights are few
multiples of one number, as of a first layer with weights of 1 or 8 bits that reads pixels, sums of exactly
zero are common, and what follows is a sign.
"""

from __future__ import annotations

import numpy as np

from relay_passes.kernels.planes_of_input import may_read_planes
from schedules.geometry import Convolution
from schedules.kernels import winograd, winograd_inside
from schedules.targets.kernel_target import KernelTarget

# Of a weight, from the highest bit of its channel to the lowest: what float32 has left of 24 is for the
# numbers that it meets and for their sum.
_BITS = 10


def of_input(weights: np.ndarray, conv: Convolution, target: KernelTarget) -> bool:
    """A layer that reads an image plane by plane. weights: float32, [O, KH, KW, C / groups]."""
    faster = may_read_planes(conv) and winograd.is_faster(conv, target)
    return faster and not are_multiples(weights)


def inside(weights: np.ndarray, conv: Convolution, target: KernelTarget) -> bool:
    """A layer that reads channels last. weights: float32, [O, KH, KW, C / groups]."""
    return winograd_inside.is_faster(conv, target) and not are_multiples(weights)


def are_multiples(weights: np.ndarray) -> bool:
    """Whether those of each output channel are +-alpha or 0, or multiples of a power of two by 10 bits."""
    channels = weights.reshape(len(weights), -1)
    largest = np.abs(channels).max(axis=1, keepdims=True, initial=0)
    one_number = ((channels == 0) | (np.abs(channels) == largest)).all(axis=1)
    _, exponents = np.frexp(largest)
    units = np.ldexp(channels.astype("float64"), _BITS - exponents)
    return bool((one_number | (units == np.rint(units)).all(axis=1)).all())
