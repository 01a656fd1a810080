"""Where an expression is constant: floats are cut into ranges on which each node stays, rises or falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from relay_passes.ir.expressions import Array, Function, Graph, Node, compute
from relay_passes.ir.ordinals import INFINITE, to_floats
from relay_passes.ir.rewrite import dtype_of

_MANY_RANGES, _MANY_STEPS = 96, 8

# ---- what operators do to what rises or falls

_RISING = {
    "relax.tanh", "relax.erf", "relax.exp", "relax.sigmoid", "relax.sqrt", "relax.log", "relax.nn.softplus",
    "relax.nn.leakyrelu",
}  # fmt: skip
_STAIRS = {"relax.sign", "relax.round", "relax.floor", "relax.ceil", "relax.trunc"}
_CLIPS = {"relax.clip", "relax.nn.relu", "relax.maximum", "relax.minimum"}
_COMPARISONS = {"relax.greater": 1, "relax.greater_equal": 1, "relax.less": -1, "relax.less_equal": -1}
_ARITHMETIC = {"relax.add", "relax.subtract", "relax.multiply", "relax.negative"}
_UNKNOWN = 2


@dataclass
class Ranges:
    """What one node is on each range: values at both ends, and how it goes between; all [C, R]."""

    low: Array
    high: Array
    way: Array  # 0 constant, 1 rising, -1 falling, _UNKNOWN

    @property
    def side(self) -> Array:
        """1 where it is nowhere negative, -1 where nowhere positive, else 0."""
        least, most = np.minimum(self.low, self.high), np.maximum(self.low, self.high)
        return np.where(least >= 0, 1, np.where(most <= 0, -1, 0))

    @property
    def finite(self) -> Array:
        return np.isfinite(self.low) & np.isfinite(self.high)


def _both_ways(a: Array, b: Array) -> Array:
    """The way of a sum of what goes these ways."""
    known = np.where(a == 0, b, np.where((b == 0) | (a == b), a, _UNKNOWN))
    return np.where((a == _UNKNOWN) | (b == _UNKNOWN), _UNKNOWN, known)


def _turned(way: Array, sign: Array | int) -> Array:
    return np.where(way == _UNKNOWN, _UNKNOWN, way * sign)


Cut = tuple[Array, Callable[[Array], Array], int]
"""(which ranges to cut, what holds behind the cut at the value of a node, that node)."""


def _derive(
    function: Function, n: int, known: dict[int, Ranges], low: Array, high: Array
) -> tuple[Array, Cut | None]:
    """(the way of a node on each range, where to cut ranges before one can go on)."""
    node, own = function.graph.nodes[n], known[n]
    args = [known[a] for a in node.args]
    ways = [a.way for a in args]
    constant = reduce(np.logical_and, [w == 0 for w in ways])
    a = args[0]
    way = np.full(own.low.shape, _UNKNOWN)
    cut: Cut | None = None
    name = node.name

    def change(at: int, test: Callable[[Array], Array], where: Array) -> Cut | None:
        """Where the answer of a test differs at the two ends."""
        start, end = test(known[at].low), test(known[at].high)
        differs = where & (start != end)
        return (differs, lambda v: test(v) == end, at) if differs.any() else None

    if name in ("relax.add", "relax.subtract"):
        way = _both_ways(ways[0], _turned(ways[1], 1 if name == "relax.add" else -1))
        way = np.where(args[0].finite | args[1].finite, way, _UNKNOWN)  # no infinity meets another
    elif name == "relax.negative":
        way = _turned(ways[0], -1)
    elif name in ("relax.multiply", "relax.divide"):
        b = args[1]
        by = ways[1] if name == "relax.multiply" else _turned(ways[1], -1)
        sides = a.side * b.side
        way = _both_ways(_turned(ways[0], a.side), _turned(by, b.side))
        way = np.where(sides == 0, _UNKNOWN, _turned(way, sides))
        way = np.where((ways[1] == 0) & (ways[0] != 0), _turned(ways[0], b.side * (b.low != 0)), way)
        if name == "relax.multiply":
            way = np.where((ways[0] == 0) & (ways[1] != 0), _turned(ways[1], a.side * (a.low != 0)), way)
        finite = a.finite & b.finite
        if name == "relax.divide":
            finite &= (b.side != 0) & (b.low != 0) & (b.high != 0)
            if _same_magnitude(function.graph, *node.args):
                way = np.where((a.side != 0) & (a.low != 0) & (a.high != 0), 0, way)
        way = np.where(finite, way, _UNKNOWN)
        for i in (0, 1):
            moving = (ways[0] != 0) & (ways[1] != 0) & (np.abs(ways[i]) == 1) & (args[i].side == 0)
            cut = cut or change(node.args[i], lambda v: v >= 0, moving)
    elif name in _CLIPS:
        way = reduce(_both_ways, ways)
        ends = [other for other in args if (other.way == 0).all()] or args[1:]
        if name == "relax.nn.relu":
            ends = [Ranges(np.zeros_like(own.low), np.zeros_like(own.low), way)]
        for end in ends:
            stays = (np.abs(way) == 1) & (own.low != own.high) & (end.low == end.high)
            cut = cut or change(n, partial(np.equal, end.low), stays)
    elif name in _COMPARISONS:
        way = _turned(_both_ways(ways[0], _turned(ways[1], -1)), _COMPARISONS[name])
        cut = change(n, lambda v: v, np.abs(way) == 1)
    elif name in ("relax.equal", "relax.not_equal") or _to_bool(function, node):
        zero = Ranges(np.zeros_like(a.low), np.zeros_like(a.low), np.zeros_like(ways[0]))
        b = args[1] if len(args) > 1 else zero
        apart = _both_ways(ways[0], _turned(b.way, -1))
        one_sided = np.abs(apart) == 1
        if one_sided.any() and (b.way[one_sided] == 0).all():
            for test in (np.less_equal, np.less):  # the bound than v
                cut = cut or change(node.args[0], partial(test, b.low), one_sided)
            if cut is None:
                way = np.where(one_sided, 0, way)
    elif name == "relax.floor_divide":
        b = args[1]
        way = np.where((ways[1] == 0) & b.finite & (b.low != 0), _turned(ways[0], b.side), way)
        cut = _of_stairs(n, own, way)
    elif name in _STAIRS or (name == "relax.astype" and _to_integers(function, node)):
        way = ways[0]
        cut = _of_stairs(n, own, way)
    elif name in ("relax.abs", "relax.square") or _is_square(function, node):
        way = np.where(a.side == 0, _UNKNOWN, _turned(ways[0], a.side))
        cut = change(node.args[0], lambda v: v >= 0, (np.abs(ways[0]) == 1) & (a.side == 0))
    elif name == "relax.where":
        condition, yes, no = args
        way = np.where(condition.way == 0, np.where(condition.low, yes.way, no.way), way)
        same = (yes.way == 0) & (no.way == 0) & (yes.low == no.low)
        way = np.where((condition.way != 0) & same, 0, way)
    elif name in ("relax.logical_and", "relax.logical_or"):
        decides = name == "relax.logical_or"
        for arg in args:
            way = np.where((arg.way == 0) & (arg.low == decides), 0, way)
    elif name == "relax.astype" or name in _RISING:
        rising = name != "relax.nn.leakyrelu" or float(node.call.attrs.alpha) >= 0
        way = ways[0] if rising else way
    way = np.where(constant, 0, way)
    if own.low.dtype.kind in "iu" and name in _ARITHMETIC:
        wide = [[np.asarray(getattr(arg, end)).astype(float) for arg in args] for end in ("low", "high")]
        wraps = np.logical_or.reduce(
            [compute(node, ends) != of for ends, of in zip(wide, (own.low, own.high), strict=True)]
        )
        way = np.where(wraps & (way != 0), _UNKNOWN, way)
    if own.low.dtype.kind == "f":
        way = np.where((np.isnan(own.low) | np.isnan(own.high)) & (way != 0), _UNKNOWN, way)
    way = np.where((np.abs(way) == 1) & (own.low == own.high), 0, way)
    return np.where(low == high, 0, way), cut


def _of_stairs(n: int, own: Ranges, way: Array) -> Cut | None:
    """Before the last step of what goes up or down by few."""
    with np.errstate(invalid="ignore"):
        few = np.abs(own.high.astype(float) - own.low.astype(float)) <= _MANY_STEPS
    last = own.high
    differs = few & (np.abs(way) == 1) & (own.low != own.high)
    return (differs, lambda v: v == last, n) if differs.any() else None


def _same_magnitude(graph: Graph, a: int, b: int) -> bool:
    def inner(n: int) -> int:
        while graph.nodes[n].name in ("relax.abs", "relax.negative"):
            n = graph.nodes[n].args[0]
        return n

    return inner(a) == inner(b)


def _dtype_before(function: Function, node: Node) -> str:
    inner = function.graph.nodes[node.args[0]]
    return str(inner.constant.dtype) if inner.constant is not None else (
        dtype_of(inner.var) if inner.var is not None else "float32"
    )  # fmt: skip


def _to_bool(function: Function, node: Node) -> bool:
    return node.name == "relax.astype" and str(node.call.attrs.dtype) == "bool"


def _to_integers(function: Function, node: Node) -> bool:
    return "int" in str(node.call.attrs.dtype) and "float" in _dtype_before(function, node)


def _is_square(function: Function, node: Node) -> bool:
    if node.name != "relax.power":
        return False
    exponent = function.graph.nodes[node.args[1]].constant
    return exponent is not None and bool((exponent == 2).all())


def constant_ranges(function: Function, low: Array, high: Array) -> tuple[Array, Array, Ranges] | None:
    """(first ordinals, last ordinals, the whole expression), [C, R], of ranges on each of which it is
    constant; None where it is not known to be. A range whose last is before its first is empty."""
    while low.shape[1] <= _MANY_RANGES:
        empty = low > high
        first, last = function.evaluate(to_floats(low)), function.evaluate(to_floats(np.maximum(low, high)))
        known: dict[int, Ranges] = {}
        cut: Cut | None = None
        for n in function.order:
            ends = [np.broadcast_to(v[n], low.shape) for v in (first, last)]
            known[n] = Ranges(ends[0], ends[1], np.zeros(low.shape, int))
            if n == function.at:
                known[n].way = (low != high).astype(int)
            elif n not in function.constants:
                known[n].way, cut = _derive(function, n, known, low, high)
            known[n].way = np.where(empty, 0, known[n].way)
            if cut is not None and (cut[0] & ~empty).any():
                break
            cut = None
        if cut is None:
            whole = known[function.graph.root]
            return (low, high, whole) if (whole.way == 0).all() else None
        where, holds, at = cut
        where = where & ~empty
        found = function.first(low, np.maximum(low, high), at, holds)
        middle = np.where(where, found, high + 1)
        low, high = np.concatenate([low, middle], 1), np.concatenate([middle - 1, high], 1)
        kept = (low <= high).any(0)
        low, high = low[:, kept], high[:, kept]
    return None


ANYWHERE = np.array(
    [
        [-INFINITE - 1, -INFINITE - 1],
        [-INFINITE, -2],
        [-1, -1],
        [0, 0],
        [1, INFINITE - 1],
        [INFINITE, INFINITE],
    ]
)
