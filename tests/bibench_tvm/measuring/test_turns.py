"""Turns, rounds and ratios, with contestants whose costs are written out."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.measuring.turns import Contestant, Entry, Turns, calls_within, ratios, rounds, spread


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == {"median": 3, "low": 2, "high": 4}
    assert spread([0.001, 0.003], 1e3) == {"median": 2, "low": 1.5, "high": 2.5}
    assert spread([7]) == {"median": 7, "low": 7, "high": 7}


def test_a_ratio_is_taken_within_a_round() -> None:
    """The machine was ten times slower in the second round, for both."""
    assert ratios([2, 20, 3], [1, 10, 1]) == {"median": 2, "low": 2, "high": 2.5}
    with pytest.raises(ValueError):
        ratios([1, 2], [1])


@pytest.mark.parametrize(
    ("seconds", "calls"), [(1e-3, 20), (3e-3, 7), (2e-2, 1), (1, 1), (1e-6, 20_000), (0, 1 << 20)]
)
def test_so_many_calls_fill_a_fiftieth_of_a_second(seconds: float, calls: int) -> None:
    """By the last clock; one that stands still ends it too."""
    assert calls_within(lambda _: (7.0, seconds), 0.02) == calls


def contestant(output: object, tolerance: float | None, expected: object = (1.0, -2.0)) -> Contestant:
    right = None if expected is None else np.array(expected)
    return Contestant(lambda: np.array(output), lambda _: (1.0,), right, tolerance)


def test_an_output_is_checked_to_within_its_tolerance() -> None:
    assert contestant([1.0, -2.0], 0.0).check() == 0
    assert contestant([1.5, -2.0], 0.25).check() == 0.25
    assert contestant([9.0, -2.0], None).check() == 4
    assert contestant([9.0], 0.0, None).check() is None
    with pytest.raises(BibenchError, match=r"Its output is wrong: it differs by 25.00% of the largest"):
        contestant([1.5, -2.0], 0.24).check()
    with pytest.raises(BibenchError, match="Its output is wrong: it differs by nan%"):
        contestant([np.nan, -2.0], 0.1).check()
    with pytest.raises(BibenchError, match=r"Its output has shape \(1,\), and \(2,\) is right."):
        contestant([1.0], 0.1).check()


class Costs:
    """Each contestant's costs, in turn; an error among them is raised. calls: whose turn it was."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def of(self, title: str, *costs: float | Exception) -> Callable[[], Entry]:
        left: Iterator[float | Exception] = iter(costs)

        def turn() -> tuple[float, ...]:
            self.calls.append(title)
            if isinstance(cost := next(left), Exception):
                raise cost
            return (cost,)

        return lambda: Entry(turn, f"about {title}")


def refuse() -> Entry:
    raise ValueError("Many words.\nIt has no groups.\n")


def test_each_takes_its_turn_and_who_fails_is_a_sentence() -> None:
    costs, told, steps = Costs(), [], []
    turns = Turns(needed=("ours",), tell=lambda *words: told.append(words))
    turns.enter("ours", costs.of("ours", 1, 10, 1))
    turns.enter("refuses", refuse)
    turns.enter("falls", costs.of("falls", 2, RuntimeError(), 2))
    turns.enter("other", costs.of("other", 3, 30, 4))
    bursts = turns.rounds(3, lambda: steps.append(len(costs.calls)))
    assert bursts == {"ours": [(1,), (10,), (1,)], "other": [(3,), (30,), (4,)]}
    assert turns.about == {"ours": "about ours", "other": "about other"}
    assert turns.failed == {"refuses": "It has no groups.", "falls": "RuntimeError"}
    assert told == list(turns.failed.items())
    assert costs.calls == ["ours", "falls", "other"] * 2 + ["ours", "other"]
    assert steps == [3, 6, 8]


def test_without_who_is_needed_there_is_no_comparison() -> None:
    costs = Costs()
    turns = Turns(needed=("ours",))
    with pytest.raises(ValueError, match="It has no groups"):
        turns.enter("ours", refuse)
    turns.enter("ours", costs.of("ours", BibenchError("The board is gone.")))
    with pytest.raises(BibenchError, match="The board is gone."):
        turns.rounds(1)


def test_rounds_of_those_who_are_all_needed() -> None:
    costs = Costs()
    one, other = costs.of("one", 1, 2)().turn, costs.of("other", 3, RuntimeError("It fell."))().turn
    assert rounds({"one": one, "other": other}, 1) == {"one": [(1,)], "other": [(3,)]}
    with pytest.raises(RuntimeError, match="It fell."):
        rounds({"one": one, "other": other}, 1)


def test_a_fault_of_the_program_is_nobodys_failure() -> None:
    turns = Turns()
    turns.enter("x", Costs().of("x", KeyError("x")))
    with pytest.raises(KeyError):
        turns.rounds(1)
