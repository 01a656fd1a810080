"""Floats by their order: each has an ordinal, and between two ordinals bisection finds any float."""

from __future__ import annotations

import numpy as np

INFINITE = 0x7F800000  # as an ordinal


def to_floats(ordinals: np.ndarray) -> np.ndarray:
    """Ordinals count the floats in order: 0.0 is 0, the next above it 1, and -0.0 is -1."""
    ordinals = np.clip(ordinals, -INFINITE - 1, INFINITE)
    bits = np.where(ordinals >= 0, ordinals, (-ordinals - 1) | 0x80000000)
    return bits.astype(np.uint32).view(np.float32)


def to_ordinals(floats: np.ndarray) -> np.ndarray:
    bits = np.asarray(floats, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF) - 1)
