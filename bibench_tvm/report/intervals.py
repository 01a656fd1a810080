"""Mean and spread of a figure over seeds."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Of a mean: Student's, of 95 percent; std and half are None where there is one value only."""

    mean: float
    count: int
    std: float | None
    half: float | None  # of the interval's width

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0)


def interval(values: Sequence[float]) -> Interval:
    """values: at least one."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, len(values), None, None)
    std = statistics.stdev(values)
    return Interval(mean, len(values), std, quantile(len(values) - 1) * std / math.sqrt(len(values)))


@functools.cache
def quantile(freedom: int) -> float:
    """The t within which Student's distribution of so many degrees has 95 percent.

    P(|T| < t) is an integral of cos^(freedom - 1) up to atan(t / sqrt(freedom)), which has no tail to cut.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) * 2 / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if scale * _simpson(freedom - 1, middle) < LEVEL:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(freedom)


def _simpson(power: int, end: float, steps: int = 200) -> float:
    """The integral of cos^power from 0 to `end`."""
    width = end / steps
    weights = ((1 if i in (0, steps) else 4 if i % 2 else 2, i * width) for i in range(steps + 1))
    return sum(weight * math.cos(x) ** power for weight, x in weights) * width / 3
