"""Time per call, in bursts. Cores are shared: contestants take turns, and ratios are taken within a turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

Burst = Callable[[int], tuple[float, float]]  # calls -> seconds of processor time and of wall time, a call


@dataclass
class Timing:
    """Seconds a call, one entry for each round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, burst: tuple[float, float]) -> None:
        self.cpu.append(burst[0])
        self.wall.append(burst[1])

    def record(self) -> dict[str, Any]:
        return {"cpu_ms": spread(self.cpu, 1e3), "wall_ms": spread(self.wall, 1e3)}


def spread(values: Sequence[float], factor: float = 1.0) -> dict[str, float]:
    """Median and quartiles."""
    scaled = [value * factor for value in values]
    low, _, high = quantiles(scaled, method="inclusive") if len(scaled) > 1 else scaled * 3
    return {"median": median(scaled), "low": low, "high": high}


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times longer theirs takes, round by round."""
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])


def burst_of(run: Callable[[], Any]) -> Burst:
    def burst(calls: int) -> tuple[float, float]:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(calls):
            run()
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        return cpu / calls / 1e9, wall / calls / 1e9

    return burst


def calls_within(burst: Burst, seconds: float) -> int:
    """How many calls fill so much wall time; warms up on the way."""
    burst(1)
    calls = 1
    while True:
        took = burst(calls)[1] * calls
        if took >= seconds / 4:
            return max(1, round(calls * seconds / took))
        calls *= 2
