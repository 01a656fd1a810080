"""The clocks of a process of our own: of its processors and of the wall."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bibench_tvm.measuring.turns import Burst, Costs, spread


@dataclass(frozen=True)
class Timing:
    """Seconds a call, one entry for each round."""

    cpu: list[float]
    wall: list[float]

    @classmethod
    def of(cls, rounds: Iterable[Costs]) -> Timing:
        cpu, wall = zip(*rounds, strict=True)
        return cls(list(cpu), list(wall))

    def record(self) -> dict[str, Any]:
        return {"cpu_ms": spread(self.cpu, 1e3), "wall_ms": spread(self.wall, 1e3)}


def burst_of(run: Callable[[], Any]) -> Burst:
    def burst(calls: int) -> Costs:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(calls):
            run()
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        return cpu / calls / 1e9, wall / calls / 1e9

    return burst
