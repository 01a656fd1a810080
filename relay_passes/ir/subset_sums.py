"""Numbers as sums of a few scales, each added or taken away: what planes of bits stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

NOTHING = 2.0**-20
"""Relative to how far the numbers reach: what rounding leaves of such sums."""


def subset_sums(
    values: Iterable[float], many: int, near: float = NOTHING
) -> tuple[float, tuple[float, ...]] | None:
    """(base, scales), the largest scale first, of which each value is base +- scale +- scale ...; None where
    that takes more than so many scales. near: relative, by how much such a sum may miss a value."""
    ordered = sorted(values, reverse=True)
    if len(ordered) < 2 or not np.isfinite(ordered).all():
        return None
    if len(ordered) == 3:  # one plane for each step; where these are equal, neither needs a correction
        steps = (ordered[0] - ordered[1]) / 2, (ordered[1] - ordered[2]) / 2
        return (ordered[0] + ordered[2]) / 2, (max(steps), min(steps))
    nothing = near * (ordered[0] - ordered[-1])
    known = np.zeros(1)
    scales: list[float] = []
    for value in ordered:
        below = (ordered[0] - value) / 2
        if np.abs(known - below).min() > nothing:
            if len(scales) == many:
                return None
            scales.append(below)
            known = np.concatenate([known, known + below])
    return ordered[0] - sum(scales), tuple(sorted(scales, reverse=True))


def codes_of(values: Sequence[float] | np.ndarray, base: float, scales: Sequence[float]) -> np.ndarray:
    """int8 [values, scales]: the signs, -1 or 1, with which the scales and the base add up to each value."""
    codes = np.array(list(product((-1, 1), repeat=len(scales))), np.int8)
    sums = base + codes @ np.array(scales)
    return codes[np.abs(np.array(values)[:, None] - sums).argmin(1)]
