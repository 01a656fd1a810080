"""How many threads a network runs on where nobody says: one, or one on each fast core, whichever is faster.

The first runs find out. All of them are runs that the user asked for, and none is made twice; what they
return is the same on any number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import TypeVar

from bibench_tvm.artifact.threads import run_on

Part = TypeVar("Part")
Result = TypeVar("Result")

# Runs that are timed for each number, after one that makes the pool and touches the memory: so many at
# least, and at most, unless they have taken so long before.
LEAST, MOST = 3, 20
ENOUGH_S = 0.05
WORTH_IT = 0.95  # of the time on one thread: for less, the other cores are better left to others


class Trial:
    """Which of two numbers of threads one network is faster on. Calls may come from several threads at once:
    then more runs are timed than needed."""

    def __init__(self, most: int):
        self._took: dict[int, list[float]] = {count: [] for count in (1, most)}
        self._chosen = 1 if most == 1 else None

    def threads(self) -> int:
        """Of the next run."""
        if self._chosen is None:
            for count, took in self._took.items():
                if not _enough(took[1:]):
                    return count
            one, many = (median(took[1:]) for took in self._took.values())
            self._chosen = max(self._took) if many < WORTH_IT * one else 1
        return self._chosen

    def call(self, work: Callable[[Sequence[Part]], list[Result]], parts: Sequence[Part]) -> list[Result]:
        """What `work`, which runs the network once for each part of a batch, returns for all of them."""
        results: list[Result] = []
        for i in range(len(parts)):
            count = self.threads()
            if self._chosen is not None:
                return results + run_on(count, partial(work, parts[i:]))
            results += run_on(count, partial(self._timed, count, partial(work, parts[i : i + 1])))
        return results

    def _timed(self, count: int, work: Callable[[], list[Result]]) -> list[Result]:
        start = time.perf_counter()  # without the wait for its turn
        results = work()
        self._took[count].append(time.perf_counter() - start)
        return results


def _enough(took: list[float]) -> bool:
    return len(took) >= MOST or (len(took) >= LEAST and sum(took) >= ENOUGH_S)
