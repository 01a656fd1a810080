"""Weights that are sums of several planes of signs, a scale for each plane and output channel.

    w = sum over k of alpha_k[o] * s_k + beta[o], s_k of -1 and +1

as ABC-Net approximates a filter, and as weights of two bits, or of -a, 0 and a, are. They are judged by their
values: those of a channel are all sums of the same few scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from relay_passes.ir.step_functions import ALIKE
from relay_passes.ir.subset_sums import codes_of, subset_sums
from relay_passes.ir.weights import BinaryWeights

MANY_WEIGHT_PLANES = 5
RECURRING = 2
"""How often a channel has each of its values, on average: any three weights are sums of two signs."""


@dataclass(frozen=True)
class WeightPlanes:
    """planes: the first has the beta of them all; values: the most of an output channel; moved: relative
    to the largest weight of a channel, by how much rounding moved them from these sums."""

    planes: tuple[BinaryWeights, ...]
    values: int
    moved: float = 0.0


class _Channel(NamedTuple):
    codes: np.ndarray  # int8 [weights, scales]
    scales: np.ndarray
    base: float
    values: int
    moved: float


def weight_planes(weights: np.ndarray) -> WeightPlanes | None:
    """weights: [O, ...]. None where there is an output channel that is no such sum."""
    found = []
    for channel in weights.reshape(len(weights), -1).astype(np.float64):
        if (sums := _channel(channel)) is None:
            return None
        found.append(sums)
    count = max(len(sums.scales) for sums in found)
    signs = np.ones((count, *weights.shape), bool)
    scales = np.zeros((count, len(found)), np.float32)
    for o, sums in enumerate(found):
        for k, scale in enumerate(sums.scales):
            signs[k, o] = (sums.codes[:, k] > 0).reshape(weights.shape[1:])
            scales[k, o] = scale
    planes = [BinaryWeights(signs[k], scales[k]) for k in range(count)]
    beta = np.array([sums.base for sums in found], np.float32)
    if beta.any():
        planes[0] = replace(planes[0], beta=beta)
    values, moved = (max(getattr(sums, what) for sums in found) for what in ("values", "moved"))
    return WeightPlanes(tuple(planes), values, moved)


def _channel(weights: np.ndarray) -> _Channel | None:
    """weights: float64, all of one output channel."""
    largest = np.abs(weights).max()
    if not np.isfinite(largest):
        return None
    numbers, which = np.unique(weights, return_inverse=True)
    apart = np.diff(numbers) > ALIKE * largest  # less is rounding
    if apart.sum() >= 2**MANY_WEIGHT_PLANES:
        return None
    which = np.concatenate([[0], np.cumsum(apart)])[which]
    values = np.bincount(which, weights) / np.bincount(which)
    if len(values) == 1:
        sign = np.where(weights < 0, -1, 1).astype(np.int8)
        return _Channel(sign[:, None], np.abs(values), 0.0, 1, 0.0)
    if len(values) > 2 and RECURRING * len(values) > weights.size:
        return None
    if (found := subset_sums(values, MANY_WEIGHT_PLANES, ALIKE)) is None:
        return None
    base, scales = found
    codes = codes_of(values, base, scales)
    design = codes.astype(np.float64)
    if abs(base) > ALIKE * largest:
        design = np.hstack([design, np.ones((len(values), 1))])
    fitted = np.linalg.lstsq(design, values)[0]
    moved = float(np.abs((design @ fitted)[which] - weights).max() / largest)
    if moved > ALIKE:
        return None
    base = float(fitted[-1]) if len(fitted) > len(scales) else 0.0
    return _Channel(codes[which], fitted[: len(scales)], base, len(values), moved)
