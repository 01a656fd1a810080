"""Bursts by the clocks of a process, which are moved by hand."""

from types import SimpleNamespace

import pytest

from benchmarks import timing
from benchmarks.timing import Timing, burst_of


def test_rounds_are_kept_apart_by_clock() -> None:
    times = Timing.of([(0.001, 0.002), (0.003, 0.006)])
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
