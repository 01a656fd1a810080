"""Cells of tables: numbers with their intervals, the best and the worst, what the paper printed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from bibench_tvm.report.data import Data
from bibench_tvm.report.intervals import Interval
from bibench_tvm.report.parts import Cell, Mark

NOTHING = "–"


def number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.{digits}f}" if abs(value) < 1e15 else f"{value:.3g}"


def percent(value: float | None) -> str:
    return number(None if value is None else 100 * value)


def spread(of: Interval, scale: float = 1.0, digits: int = 2) -> str:
    half = "" if of.half is None else f" ± {number(scale * of.half, digits)}"
    return number(scale * of.mean, digits) + half


def duration(seconds: float) -> str:
    """With three digits and a unit that suits it."""
    if abs(seconds) >= 1000:
        return f"{seconds:,.0f} s"
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
    unit = next((name for name, size in units.items() if abs(seconds) >= size), "µs")
    return f"{seconds / units[unit]:.3g} {unit}"


def cost(value: float, unit: str) -> str:
    return duration(value) if unit == "s" else f"{value:,.0f} {unit}"


def marks(values: Mapping[str, float | None], *, more_is_better: bool = True) -> dict[str, Mark]:
    """Name -> "best" or "worst", where there are two that differ; those that are equal share it."""
    there = {name: value for name, value in values.items() if value is not None}
    if len(set(there.values())) < 2:
        return {}
    most, least = max(there.values()), min(there.values())
    best, worst = (most, least) if more_is_better else (least, most)
    found: dict[str, Mark] = {name: "worst" for name, value in there.items() if value == worst}
    return found | {name: "best" for name, value in there.items() if value == best}


def cells(
    names: Sequence[str], values: Mapping[str, float | None], printed: Mapping[str, float | None]
) -> list[Cell]:
    """A cell a name; where more is better."""
    found = marks(values)
    return [
        Cell(
            number(values.get(name)),
            mark=found.get(name, ""),
            printed="" if printed.get(name) is None else number(printed[name]),
        )
        for name in names
    ]


def run_line(data: Data, *options: str) -> str:
    """The command that would bring results."""
    return shlex.join(["python", "-m", "bibench_tvm.tracks", "run", str(data.folder), *options])
