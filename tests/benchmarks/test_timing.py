"""Bursts, quartiles and ratios, against a clock that is moved by hand and numbers that are written out."""

from types import SimpleNamespace

import pytest

from benchmarks import timing
from benchmarks.timing import Timing, burst_of, calls_within, ratios, spread


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == {"median": 3, "low": 2, "high": 4}
    assert spread([0.001, 0.003], 1e3) == {"median": 2, "low": 1.5, "high": 2.5}
    assert spread([7]) == {"median": 7, "low": 7, "high": 7}


def test_a_ratio_is_taken_within_a_round() -> None:
    """The machine was ten times slower in the second round, for both."""
    assert ratios([2, 20, 3], [1, 10, 1]) == {"median": 2, "low": 2, "high": 2.5}
    with pytest.raises(ValueError):
        ratios([1, 2], [1])


def test_rounds_are_kept_apart_by_clock() -> None:
    times = Timing()
    for burst in (0.001, 0.002), (0.003, 0.006):
        times.add(burst)
    assert (times.cpu, times.wall) == ([0.001, 0.003], [0.002, 0.006])
    assert times.record() == {
        "cpu_ms": {"median": 2, "low": 1.5, "high": 2.5},
        "wall_ms": {"median": 4, "low": 3, "high": 5},
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Nanoseconds of the processor and of the wall, which only what is timed moves on."""
    now = SimpleNamespace(cpu=17, wall=10**6)
    ours = SimpleNamespace(process_time_ns=lambda: now.cpu, perf_counter_ns=lambda: now.wall)
    monkeypatch.setattr(timing, "time", ours)
    return now


def test_a_burst_is_seconds_a_call(clock: SimpleNamespace) -> None:
    calls = []

    def run() -> None:
        calls.append(1)
        clock.cpu += 2_000
        clock.wall += 5_000

    assert burst_of(run)(4) == (pytest.approx(2e-6), pytest.approx(5e-6))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("nanoseconds", "calls"), [(1_000_000, 20), (3_000_000, 7), (20_000_000, 1), (10**9, 1), (1_000, 20_000)]
)
def test_so_many_calls_fill_a_fiftieth_of_a_second(
    clock: SimpleNamespace, nanoseconds: int, calls: int
) -> None:
    def run() -> None:
        clock.wall += nanoseconds

    assert calls_within(burst_of(run), 0.02) == calls
