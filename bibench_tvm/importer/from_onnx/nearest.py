"""Which elements a Resize of ONNX to the nearest takes.

Near the middle between two elements, and next to a whole number, the arithmetic decides: 3 / 0.6 is 5 in
float32, and 4.9999999 of the float32 that is nearest to 0.6. onnxruntime computes in float32, and so does
PyTorch, whose scale such a file has.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np

_HALF = np.float32(0.5)
_NEAR = np.float32(1e-6)  # to the middle: as good as there; by what onnxruntime 1.31 gives
COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def nearest_elements(size: int, out: int, scale: np.float32, coordinates: str, rounding: str) -> np.ndarray:
    """int64 [out], of an axis with `size` elements, as onnxruntime has them. coordinates: of `COORDINATES`;
    rounding: of `ROUNDINGS`."""
    i = np.arange(out, dtype=np.float32)
    at = _place(i, size, out, scale, _HALF, coordinates)
    if rounding == "floor":
        found = np.floor(at)
    elif rounding == "ceil":
        found = np.ceil(at)
    else:
        below = np.floor(at)
        half = np.abs(at - (below + _HALF)) <= _NEAR
        up = np.where(half, rounding == "round_prefer_ceil", at - below > _HALF)
        found = below + up
    return np.clip(found, 0, size - 1).astype(np.int64)


def exact_elements(size: int, out: int, coordinates: str, rounding: str) -> np.ndarray:
    """The same of sizes, without rounding."""
    scale, half = Fraction(out, size), Fraction(1, 2)
    places = [_place(Fraction(i), size, out, scale, half, coordinates) for i in range(out)]
    nearest = {
        "floor": floor,
        "ceil": ceil,
        "round_prefer_floor": lambda at: ceil(at - half),
        "round_prefer_ceil": lambda at: floor(at + half),
    }[rounding]
    return np.clip(np.array([nearest(at) for at in places], np.int64), 0, size - 1)


def _place(i: Any, size: int, out: int, scale: Any, half: Any, coordinates: str) -> Any:
    """In ONNX's words x_original of x_resized = i."""
    if coordinates == "asymmetric":
        return i / scale
    if out == 1 and coordinates != "half_pixel":
        return i * 0
    if coordinates == "align_corners":
        return i * (size - 1) / (out - 1)
    return (i + half) / scale - half
