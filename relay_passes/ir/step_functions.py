"""Expressions of one tensor, element by element, that take few values: which, and where they change.

A sign is spelled in many ways, and judged here by what it computes and not by how it is written. The floats
are cut into ranges (the infinities, both zeros, what lies between), and for each operator and range it is
derived whether it is constant there, rises or falls: rounding to float32 is monotone, so this holds for the
floats as they are and not only for the reals. Where a comparison, a rounding or a clip changes in a range,
bisection over the floats finds the very number at which it does, and the range is cut there. In the end each
range of an expression with few values has one of them, which was computed at the ends of that range, and
every float is in a range. Constants may differ from channel to channel: each has ranges of its own.

One thing is taken as what it means: in a sum, what is added and taken away again, `s - h + h`, as the
straight-through estimator is written. Rounding moves the values a little then; `Steps.moved` says how far.

What is not rounded correctly everywhere (tanh, sigmoid, exp) is taken as if it were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax

from relay_passes.ir.expressions import Array, Function, Graph
from relay_passes.ir.monotone import ANYWHERE, constant_ranges
from relay_passes.ir.ordinals import INFINITE, to_floats
from relay_passes.ir.rewrite import dtype_of

ALIKE = 1e-5
"""Relative: what a sum of more than it leaves, and weights made by one, may be moved by rounding."""
_ONE_NUMBER = 2.0**-21  # relative: values that differ by less are one, but for rounding

_MANY_CUTS, _MANY_VALUES = 8, 8


@dataclass(frozen=True)
class Steps:
    """An expression of one tensor x that takes two values.

    accident: where x is 0 it has a third one, in their middle, that is taken as the higher here. moved: how
    far rounding moves it from its two values in the source, as seen from -16 to 16; None where it does not.
    intervals: ordinals [C] each, (first, last) of the closed intervals of x where it has the higher value, or
    the lower one if `outside`; shape: of these, as they broadcast against x."""

    x: relax.Expr
    low: float
    high: float
    accident: bool = False
    moved: float | None = None
    outside: bool = False
    intervals: tuple[tuple[Array, Array], ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Values:
    """An expression that takes other than two values; zero: whether it is (-a, 0, a), 0 only where x is 0."""

    found: tuple[float, ...]
    x: relax.Expr | None = None
    zero: bool = False
    moved: float | None = None


def step_function(
    builder: relax.BlockBuilder,
    expr: relax.Expr,
    domain: Callable[[relax.Expr], tuple[bool, bool, str]],
) -> Steps | Values | None:
    """What an expression takes, if that is known to be few values.

    domain: of a tensor, whether it is ever negative, ever positive, and whether it is exactly 0 ("absent",
    "accidental" or "common").
    """
    if not isinstance(expr, relax.Var) or "float" not in dtype_of(expr):
        return None
    graph = Graph(builder, expr)
    second: Steps | Values | None = None
    for at in graph.cuts()[:_MANY_CUTS]:
        function, x = Function(graph, at), graph.nodes[at].var
        if not function.fits or x is None:
            continue
        if dtype_of(x) == "bool":
            found = None if graph.root != graph.written else _of_truth(function, x)  # unmeasured
        else:
            found = _of_floats(function, x, domain(x), _moved(graph, at))
        if isinstance(found, Steps) and not found.accident:
            return found
        if second is None or (isinstance(second, Values) and not second.zero):
            second = found or second
    return second


def _of_truth(function: Function, x: relax.Expr) -> Steps | Values | None:
    values = function(np.array([[False, True]])).astype(np.float64)
    if function.channels > 1 or not np.isfinite(values).all():
        return None
    no, yes = values.ravel()
    if no == yes:
        return None
    return Steps(x, float(min(no, yes)), float(max(no, yes)), outside=bool(no > yes))


def _spread(count: int) -> Array:
    """Numbers from -16 to 16, [1, 2 * count]."""
    near = np.geomspace(1e-6, 16, count, dtype=np.float32)
    return np.concatenate([-near[::-1], near])[None]


def _moved(graph: Graph, at: int) -> Callable[[Array], float] | None:
    """Of an expression with a detour: how far it is from what it means, at such numbers."""
    if graph.root == graph.written:
        return None

    def measure(x: Array) -> float:
        root = graph.root
        meant = Function(graph, at)(x)
        graph.root = graph.written
        try:
            if any(
                graph.nodes[n].call is None and graph.nodes[n].constant is None and n != at
                for n in graph.reached(graph.root, at)
            ):
                return math.nan
            written = Function(graph, at)(x)
        finally:
            graph.root = root
        return float(np.max(np.abs(written.astype(np.float64) - meant)))

    return measure


def _of_floats(
    function: Function, x: relax.Expr, domain: tuple[bool, bool, str], moved: Callable[[Array], float] | None
) -> Steps | Values | None:
    negative, positive, zero = domain
    sample = np.broadcast_to(_spread(16), (function.channels, 32))
    if len(_distinct(function(sample).astype(np.float64))) > _MANY_VALUES:
        return None
    start = ANYWHERE[[i for i in range(6) if (negative or i > 1) and (positive or i < 4)]]
    low, high = (np.tile(start[:, i], (function.channels, 1)) for i in (0, 1))
    found = constant_ranges(function, low, high)
    if found is None:
        return None
    low, high, whole = found
    full, values = low <= high, whole.low.astype(np.float64)
    values = np.broadcast_to(values, low.shape)
    is_zero = (low >= -1) & (high <= 0)
    infinite = (low == high) & (np.abs(to_floats(low)) == np.inf)
    nan = np.isnan(values)
    if (nan & full & ~infinite & ~is_zero).any() or np.isinf(values[full]).any():
        return None
    distance = moved(_spread(2048)) if moved else None
    if distance is not None and math.isnan(distance):
        return None
    counted = full & ~nan
    if zero == "absent":
        counted &= ~is_zero
    counted_zero = full & is_zero & (zero != "absent")
    all_values = _distinct(values[counted])
    accident = False
    taken = all_values
    if len(all_values) == 3 and is_zero.any():
        taken = _distinct(values[counted & ~is_zero])
        third = values[counted & is_zero]
        halves = len(taken) == 2 and bool((third == 0).all()) and _alike(taken[0], -taken[1])
        if halves and (distance or 0.0) > ALIKE * max(taken):
            return None
        if halves and zero == "common":
            return Values(tuple(all_values), x, True, distance)
        accident = halves or (zero == "accidental" and len(taken) == 2 and _in_the_middle(third, taken))
    if (nan & counted_zero).any():
        return None
    if len(taken) != 2 or (len(all_values) == 3 and not accident):
        if (distance or 0.0) > ALIKE * max(map(abs, all_values), default=0.0):
            return None
        return Values(tuple(all_values), moved=distance) if len(all_values) != 2 else None
    low_value, high_value = taken
    off = np.abs(values[counted & ~(is_zero & accident)][:, None] - np.array(taken)).min(1).max()
    if _alike(low_value, -high_value) and low_value != -high_value:
        off, low_value = max(off, abs(low_value + high_value)), -high_value
    if off:
        distance = max(distance or 0.0, float(off))
    if (distance or 0.0) > ALIKE * max(abs(low_value), abs(high_value)):
        return None
    higher = np.abs(values - high_value) < np.abs(values - low_value)
    if accident:
        higher = higher | is_zero
    of_nan = function(np.full((function.channels, 1), np.nan, np.float32))
    outside = bool((np.abs(of_nan - high_value) <= ALIKE * abs(high_value or low_value)).all())
    intervals = _intervals(low, high, higher != outside, full & ~(is_zero & (zero == "absent")))
    if intervals is None:
        return None
    return Steps(x, low_value, high_value, accident, distance, outside, intervals, function.extents)


def _alike(a: float, b: float) -> bool:
    return abs(a - b) <= _ONE_NUMBER * max(abs(a), abs(b))


def _in_the_middle(values: Array, ends: list[float]) -> bool:
    return bool((np.abs(values - sum(ends) / 2) <= _ONE_NUMBER * max(map(abs, ends))).all())


def _distinct(values: Array) -> list[float]:
    """The numbers among these but for rounding, in order; of each group the most frequent."""
    numbers, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(numbers) > 64:
        return numbers[:64].tolist()
    largest = np.abs(numbers).max(initial=0.0)
    groups: list[list[int]] = []
    for i, v in enumerate(numbers):
        if groups and v - numbers[groups[-1][0]] <= _ONE_NUMBER * largest:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [float(numbers[max(group, key=lambda i: counts[i])]) for group in groups]


def _intervals(low: Array, high: Array, chosen: Array, full: Array) -> tuple[tuple[Array, Array], ...] | None:
    """(first, last), ordinals [C], of the runs of ranges that are chosen; what is in no range may be any.
    None where such a run would have to tell -0.0 from 0.0."""
    rows: list[list[list[int]]] = []
    for channel in range(len(low)):
        runs: list[list[int]] = []
        before = None  # whether the last range was chosen
        for i in np.argsort(low[channel]):
            if not full[channel, i]:
                continue
            first, last = int(low[channel, i]), int(high[channel, i])
            if chosen[channel, i]:
                if before:
                    runs[-1][1] = last
                else:
                    runs.append([-INFINITE - 1 if before is None else first, last])
            before = bool(chosen[channel, i])
        if runs and before:
            runs[-1][1] = INFINITE
        # Between a negative and a positive range without zeros either will do.
        runs = [[-1 if a == 1 and not _holds(low, high, full, channel, -1) else a, b] for a, b in runs]
        if any(a == 0 or b == -1 for a, b in runs):
            return None
        rows.append(runs)
    most = max(map(len, rows))
    empty = [INFINITE, -INFINITE - 1]
    padded = np.array([[*runs, *[empty] * (most - len(runs))] for runs in rows], np.int64)
    return tuple((padded[:, i, 0], padded[:, i, 1]) for i in range(most)) if most else ()


def _holds(low: Array, high: Array, full: Array, channel: int, ordinal: int) -> bool:
    return bool((full[channel] & (low[channel] <= ordinal) & (high[channel] >= ordinal)).any())
