"""How many threads a network runs on where nobody says: one, or one on each fast core, whichever is faster.

The first runs find out. All of them are runs that the user asked for, and none is made twice; what they
return is the same on any number of threads. Later runs on several threads are watched: where something else
has got the cores, a network waits for its slowest thread, and is sooner done on one.
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

ROUNDS = 3  # in each of which one thread has a turn and then several; all have to be for several
# Timed runs of a turn, after one that makes the pool and touches the memory: so many at least, and at most,
# unless they have taken so long before.
LEAST, MOST = 2, 10
ENOUGH_S = 0.01
WORTH_IT = 0.95  # of the time on one thread: for less, the other cores are better left to others
PATIENCE = 5  # runs on several threads one after another that take longer than on one


class Trial:
    """Which of two numbers of threads one network is faster on. Calls may come from several threads at once,
    and in a child that was forked meanwhile: there is no lock."""

    def __init__(self, most: int):
        self._most = most
        self._runs: list[tuple[int, float]] = []  # (threads, seconds)
        self._chosen = 1 if most == 1 else None
        self._alone_s = 0.0  # a run on one thread
        self._slower = 0

    def threads(self) -> int:
        """Of the next run."""
        if self._chosen is not None:
            return self._chosen
        turns = self._turns()
        costs = [median(turn[1:]) for turn in turns[:-1]]
        rounds = list(zip(costs[::2], costs[1::2], strict=False))
        if any(many > WORTH_IT * one for one, many in rounds):
            self._chosen = 1
        elif len(rounds) == ROUNDS:
            self._alone_s = median(one for one, _ in rounds)
            self._chosen = self._most
        return self._chosen or self._of_turn(len(turns))

    def call(self, work: Callable[[Sequence[Part]], list[Result]], parts: Sequence[Part]) -> list[Result]:
        """What `work`, which runs the network once for each part of a batch, returns for all of them."""
        results: list[Result] = []
        while len(results) < len(parts):
            count, rest = self.threads(), parts[len(results) :]
            if self._chosen == 1:
                return results + run_on(1, partial(work, rest))
            # A long batch is no reason to look away for long.
            results += run_on(count, partial(self._timed, count, partial(work, rest[:1])))
        return results

    def _timed(self, count: int, work: Callable[[], list[Result]]) -> list[Result]:
        start = time.perf_counter()  # without the wait for its turn
        results = work()
        took = time.perf_counter() - start
        if self._chosen is None:
            self._runs.append((count, took))
        elif count > 1:
            self._slower = self._slower + 1 if took > self._alone_s else 0
            if self._slower >= PATIENCE:
                self._chosen = 1
        return results

    def _turns(self) -> list[list[float]]:
        """Seconds of the runs of each turn; the last one goes on. What comes late from the other is left."""
        turns: list[list[float]] = [[]]
        for count, seconds in tuple(self._runs):
            if count == self._of_turn(len(turns)):
                turns[-1].append(seconds)
                timed = turns[-1][1:]
                if len(timed) >= MOST or (len(timed) >= LEAST and sum(timed) >= ENOUGH_S):
                    turns.append([])
        return turns

    def _of_turn(self, turn: int) -> int:
        """turn: from 1 on."""
        return 1 if turn % 2 else self._most
