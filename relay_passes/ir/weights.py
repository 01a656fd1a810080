"""Which weights are +-alpha, or two numbers, per output channel. They are judged by their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relay_passes.ir.step_functions import ALIKE


@dataclass(frozen=True)
class BinaryWeights:
    """signs: bool, true for the higher value; alpha: float32 [O], >= 0; beta: float32 [O], or None for 0;
    weights = alpha * (2 * signs - 1) + beta, but for `moved`, relative to alpha: by how much rounding moved
    them."""

    signs: np.ndarray
    alpha: np.ndarray
    moved: float = 0.0
    beta: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """float32 [O, ...], with nothing moved."""
        each = (slice(None), *[None] * (self.signs.ndim - 1))
        values = np.where(self.signs, self.alpha[each], -self.alpha[each])
        return values if self.beta is None else values + self.beta[each]


def binary_weights(weights: np.ndarray) -> BinaryWeights | str:
    """weights: [O, ...]. The reason in words where they are not two numbers per output channel.

    A channel that is 0 everywhere has alpha = 0: its signs do not matter.
    """
    flat = np.abs(weights.reshape(len(weights), -1))
    alpha = flat.max(1)
    if (flat == alpha[:, None]).all():
        return BinaryWeights(weights >= 0, alpha.astype(np.float32))
    middle = np.median(flat, 1).astype(np.float32)  # of an odd number, and of most others, one of them
    off = np.abs(flat.astype(np.float64) - middle[:, None]).max(1)
    moved = off / np.where(middle, middle, 1)
    signs, beta = weights >= 0, np.zeros_like(middle)
    for channel in np.nonzero(off > ALIKE * middle)[0]:
        values = weights[channel].astype(np.float64)
        higher = values > (values.min() + values.max()) / 2
        low, high = (np.median(values[side]) if side.any() else np.nan for side in (~higher, higher))
        moved[channel] = 2 * np.abs(values - np.where(higher, high, low)).max() / (high - low)
        if not moved[channel] <= ALIKE:  # NaN too, of weights that are not finite
            count, zeros = len(np.unique(values)), ", 0 among them" if (values == 0).any() else ""
            return (
                "its weights are not +-alpha, nor alpha s + beta: "
                f"output channel {channel} has {count} different values{zeros}"
            )
        signs[channel], middle[channel], beta[channel] = higher, (high - low) / 2, (high + low) / 2
    return BinaryWeights(signs, middle, float(moved.max()), beta if beta.any() else None)


@dataclass(frozen=True)
class TwoLevels:
    """Weights that are where(higher, high, low) to the last bit. higher: bool, like the weights; low, high:
    [O], in the weights' own dtype."""

    higher: np.ndarray
    low: np.ndarray
    high: np.ndarray


def two_levels(weights: np.ndarray) -> TwoLevels | None:
    """weights: [O, ...], floats or integers. None where an output channel has more than two values."""
    flat = weights.reshape(len(weights), -1)
    low, high = flat.min(1), flat.max(1)
    higher = flat == high[:, None]
    if not (higher | (flat == low[:, None])).all() or not np.isfinite(flat).all():
        return None
    return TwoLevels(higher.reshape(weights.shape), low, high)


FEW_ULPS = 2.0**-21
"""Relative to alpha: what weights of a float layer may be moved by rounding, to be stored as two numbers."""


def snapped(weights: np.ndarray, binary: BinaryWeights) -> np.ndarray:
    """The weights without what rounding moved them by, where that is so little; else as they are."""
    if binary.moved > FEW_ULPS or two_levels(weights) is not None:
        return weights
    alpha = binary.alpha.reshape(-1, *[1] * (weights.ndim - 1)).astype(np.float64)
    beta = np.zeros_like(alpha) if binary.beta is None else binary.beta.reshape(alpha.shape)
    return np.where(binary.signs, beta + alpha, beta - alpha).astype(weights.dtype)
