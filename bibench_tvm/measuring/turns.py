"""Who is compared takes turns, and ratios are taken within a round: what the machine does touches all.

A cost is seconds a call, or what an emulated board has in their place; a contestant may have several clocks.
Needs neither tvm nor torch: it runs in the processes of other libraries too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Any

import numpy as np

from bibench_tvm.cli.errors import BibenchError

Costs = tuple[float, ...]  # of one call, by each clock; the wall's is the last
Burst = Callable[[int], Costs]  # of so many calls
_MOST_CALLS = 1 << 20


@dataclass(frozen=True)
class Contestant:
    """run: one inference, its output as an array; burst: times so many of them; expected: the output, to
    within `tolerance` of the largest entry, None where nobody knows it; tolerance: None where any will do."""

    run: Callable[[], np.ndarray]
    burst: Burst
    expected: np.ndarray | None
    tolerance: float | None

    def check(self) -> float | None:
        """The largest difference, relative to the largest entry. Raises BibenchError if it is too large."""
        output, right = self.run(), self.expected
        if right is None:
            return None
        if output.shape != right.shape:
            raise BibenchError(f"Its output has shape {output.shape}, and {right.shape} is right.")
        difference = float(np.abs(output - right).max() / max(np.abs(right).max(), 1e-9))
        if self.tolerance is not None and not difference <= self.tolerance:
            raise BibenchError(f"Its output is wrong: it differs by {difference:.2%} of the largest entry.")
        return difference


@dataclass(frozen=True)
class Entry:
    """A contestant that is ready. turn: one burst; about: what was seen as it was made ready."""

    turn: Callable[[], Costs]
    about: Any = None


class Turns:
    """The contestants of one comparison. One that fails is a sentence in `failed`, and the others go on."""

    def __init__(
        self, needed: Container[str] = (), *, tell: Callable[[str, str], Any] = lambda title, sentence: None
    ):
        """needed: titles without which there is no comparison, whose failure is raised; tell: hears the title
        and the sentence of each that fails."""
        self._needed, self._tell = needed, tell
        self._entries: dict[str, Entry] = {}
        self.failed: dict[str, str] = {}

    @property
    def about(self) -> dict[str, Any]:
        """Of each that still takes part, in the order in which they entered."""
        return {title: entry.about for title, entry in self._entries.items()}

    def enter(self, title: str, make: Callable[[], Entry]) -> None:
        with self._failing(title):
            self._entries[title] = make()

    def rounds(self, count: int, step: Callable[[], Any] = lambda: None) -> dict[str, list[Costs]]:
        """The costs of each that took its turn in every round; step: is called after each round."""
        costs: dict[str, list[Costs]] = {title: [] for title in self._entries}
        for _ in range(count):
            for title, entry in list(self._entries.items()):
                with self._failing(title):
                    costs[title].append(entry.turn())
            step()
        return {title: costs[title] for title in self._entries}

    @contextlib.contextmanager
    def _failing(self, title: str) -> Iterator[None]:
        try:
            yield
        except (BibenchError, ValueError, RuntimeError) as error:
            if title in self._needed:
                raise
            self._entries.pop(title, None)
            self.failed[title] = (str(error).strip() or type(error).__name__).splitlines()[-1]
            self._tell(title, self.failed[title])


def rounds(turns: Mapping[str, Callable[[], Costs]], count: int) -> dict[str, list[Costs]]:
    """The costs of those of whom each is needed: what one of them raises is raised."""
    everyone = Turns(needed=turns)
    for title, turn in turns.items():
        everyone.enter(title, partial(Entry, turn))
    return everyone.rounds(count)


def spread(values: Sequence[float], factor: float = 1.0) -> dict[str, float]:
    """Median and quartiles."""
    scaled = [value * factor for value in values]
    low, _, high = quantiles(scaled, method="inclusive") if len(scaled) > 1 else scaled * 3
    return {"median": median(scaled), "low": low, "high": high}


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times more theirs costs, round by round."""
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])


def calls_within(burst: Burst, seconds: float) -> int:
    """How many calls fill so much time by the last clock; warms up on the way."""
    burst(1)
    calls = 1
    while True:
        took = burst(calls)[-1] * calls
        if took >= seconds / 4 or calls >= _MOST_CALLS:
            return max(1, min(_MOST_CALLS, round(calls * seconds / max(took, 1e-9))))
        calls *= 2
