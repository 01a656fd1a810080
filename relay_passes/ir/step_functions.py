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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    shape_of,
)
from relay_passes.ir.transfers.operands import shrunk
from schedules.parts.epilogue import OPERATORS, evaluate_operator

ALIKE = 1e-5
"""Relative: what a sum of more than it leaves, and weights made by one, may be moved by rounding."""
_ONE_NUMBER = 2.0**-21  # relative: values that differ by less are one, but for rounding

_MANY_NODES, _MANY_RANGES, _MANY_CHANNELS, _MANY_CUTS, _MANY_STEPS, _MANY_VALUES = 128, 96, 4096, 8, 8, 8
_INFINITE = 0x7F800000  # as an ordinal

Array = np.ndarray
Pick = Callable[[Array], Array]


def to_floats(ordinals: Array) -> Array:
    """Ordinals count the floats in order: 0.0 is 0, the next above it 1, and -0.0 is -1."""
    ordinals = np.clip(ordinals, -_INFINITE - 1, _INFINITE)
    bits = np.where(ordinals >= 0, ordinals, (-ordinals - 1) | 0x80000000)
    return bits.astype(np.uint32).view(np.float32)


def to_ordinals(floats: Array) -> Array:
    bits = np.asarray(floats, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF) - 1)


# ---- what the operators compute, of whole arrays


def _precisely(function: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda a: function(np.asarray(a, np.float64)).astype(np.asarray(a).dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])
_MORE: dict[str, Callable[..., Array]] = {
    "relax.sign": np.sign, "relax.equal": np.equal, "relax.not_equal": np.not_equal,
    "relax.floor": np.floor, "relax.ceil": np.ceil, "relax.trunc": np.trunc,
    "relax.power": lambda a, b: np.power(np.asarray(a, np.float64), b).astype(np.asarray(a).dtype),
    "relax.square": np.square,
    "relax.tanh": _precisely(np.tanh), "relax.erf": _precisely(_erf), "relax.exp": _precisely(np.exp),
    "relax.sigmoid": _precisely(lambda a: 1 / (1 + np.exp(-a))), "relax.log": _precisely(np.log),
    "relax.nn.softplus": _precisely(lambda a: np.logaddexp(0, a)),
    "relax.cos": _precisely(np.cos), "relax.sin": _precisely(np.sin), "relax.tan": _precisely(np.tan),
    "relax.rsqrt": _precisely(lambda a: 1 / np.sqrt(a)), "relax.atan": _precisely(np.arctan),
    "relax.isnan": np.isnan, "relax.isinf": np.isinf, "relax.isfinite": np.isfinite,
    "relax.floor_divide": np.floor_divide,
    "relax.floor_mod": np.mod, "relax.nn.silu": _precisely(lambda a: a / (1 + np.exp(-a))),
}  # fmt: skip
_FILLED = {"relax.ones_like": 1, "relax.zeros_like": 0, "relax.ones": 1, "relax.zeros": 0}
_SUMS = {"relax.add": (1, 1), "relax.subtract": (1, -1), "relax.negative": (-1,)}

# ---- what they do to what rises or falls

_RISING = {
    "relax.tanh", "relax.erf", "relax.exp", "relax.sigmoid", "relax.sqrt", "relax.log", "relax.nn.softplus",
    "relax.nn.leakyrelu",
}  # fmt: skip
_STAIRS = {"relax.sign", "relax.round", "relax.floor", "relax.ceil", "relax.trunc"}
_CLIPS = {"relax.clip", "relax.nn.relu", "relax.maximum", "relax.minimum"}
_COMPARISONS = {"relax.greater": 1, "relax.greater_equal": 1, "relax.less": -1, "relax.less_equal": -1}
_UNKNOWN = 2


@dataclass
class _Node:
    """One operator, constant or tensor; args: numbers of other nodes."""

    var: relax.Expr | None
    call: Any = None  # relax.Call
    args: tuple[int, ...] = ()
    constant: Array | None = None

    @property
    def name(self) -> str:
        return self.call.op.name if self.call is not None else ""


class _Graph:
    """An expression as nodes, operands first, equal ones once."""

    def __init__(self, builder: relax.BlockBuilder, expr: relax.Expr):
        self.builder, self.shape = builder, shape_of(expr)
        self.nodes: list[_Node] = []
        self._known: dict[Any, int] = {}
        self._of: dict[relax.Var, int] = {}
        self.root = self._add(expr)
        self.written = self.root  # as the source has it
        self.root = self._without_detours(self.root, {})

    def _intern(self, key: Any, node: _Node) -> int:
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(node)
        return self._known[key]

    def _constant(self, value: Array) -> int:
        value = shrunk(value) if value.ndim else value
        value = value.reshape(()) if value.size == 1 else value
        return self._intern((value.tobytes(), value.shape, value.dtype.str), _Node(None, constant=value))

    def _add(self, expr: relax.Expr) -> int:
        if is_constant(expr):
            return self._constant(constant_value(expr))
        if isinstance(getattr(expr, "value", None), (bool, int, float)):
            return self._constant(np.asarray(expr.value, np.float32))
        if expr in self._of:
            return self._of[expr]
        made = made_by(self.builder, expr)
        if isinstance(made, relax.Var) or is_constant(made):
            return self._add(made)
        self._of[expr] = number = self._call(expr, made)
        return number

    def _call(self, var: relax.Var, made: Any) -> int:
        leaf = _Node(var)
        if not is_call(made) or not is_tensor(var):
            return self._intern(var, leaf)
        if (filled := _FILLED.get(made.op.name)) is not None:
            return self._constant(np.asarray(filled, dtype_of(var)))
        spread = {"relax.full": 1, "relax.full_like": 1, "relax.broadcast_to": 0, "relax.reshape": 0}
        if (at := spread.get(made.op.name)) is not None:
            inner = made_by(self.builder, made.args[at])
            if is_constant(inner) and inner.value.numpy().size == 1:
                return self._constant(constant_value(inner).reshape(()).astype(dtype_of(var)))
            if at == 0 and shape_of(made.args[0]) == shape_of(var):
                return self._add(made.args[0])
        if (
            made.op.name not in OPERATORS
            and made.op.name not in _MORE
            or shape_of(var) != self.shape
            or len(self.nodes) > _MANY_NODES
        ):
            return self._intern(var, leaf)
        args = tuple(self._add(arg) for arg in made.args)
        if made.op.name == "relax.astype" and dtype_of(var) == dtype_of(made.args[0]):
            return args[0]
        key = (made.op.name, args, str(made.attrs))
        return self._intern(key, _Node(var, made, args))

    def _without_detours(self, number: int, done: dict[int, int]) -> int:
        """What is added and taken away again left out."""
        if number in done:
            return done[number]
        node = self.nodes[number]
        terms = self._terms(number)
        rest = sorted(((n, t) for t, n in terms.items() if n), reverse=True)
        gone = [t for t, n in terms.items() if not n and self.nodes[t].constant is None]
        if gone and rest and all(n in (1, -1) for n, _ in rest):
            total: int | None = None
            for sign, term in rest:
                total = self._joined(total, self._without_detours(term, done), sign)
            assert total is not None
            done[number] = total
            return total
        args = tuple(self._without_detours(arg, done) for arg in node.args)
        made = number
        if args != node.args and node.call is not None:
            made = self._intern((node.name, args, str(node.call.attrs)), _Node(node.var, node.call, args))
        done[number] = made
        return made

    def _joined(self, total: int | None, term: int, sign: int) -> int:
        if total is None and sign > 0:
            return term
        left = self._constant(np.asarray(0, np.float32)) if total is None else total
        make = relax.op.add if sign > 0 else relax.op.subtract
        like = relax.Var("like", relax.TensorType((), "float32"))
        call = make(like, like)
        return self._intern((call.op.name, (left, term), "None"), _Node(None, call, (left, term)))

    def _terms(self, number: int) -> Counter[int]:
        """Of a sum: term -> how often it is added, less how often it is taken away."""
        found: Counter[int] = Counter()
        pending = [(number, 1)]
        while pending:
            at, sign = pending.pop()
            node = self.nodes[at]
            if (signs := _SUMS.get(node.name)) is not None:
                pending += [(arg, sign * s) for arg, s in zip(node.args, signs, strict=True)]
            else:
                found[at] += sign
        return found

    def cuts(self) -> list[int]:
        """Tensors of which alone the expression is made, the nearest first."""
        reached = self._reached(self.root, None)
        found = []
        for number in reversed(reached):
            node = self.nodes[number]
            if number == self.root or node.var is None or node.constant is not None:
                continue
            if shape_of(node.var) != self.shape or dtype_of(node.var) not in ("float32", "bool"):
                continue
            inside = self._reached(self.root, number)
            if all(n == number or self.nodes[n].call is not None or self.nodes[n].constant is not None
                   for n in inside):  # fmt: skip
                found.append(number)
        return found

    def _reached(self, root: int, stop: int | None) -> list[int]:
        """Operands first."""
        order: list[int] = []
        seen: set[int] = set()
        pending = [(root, False)]
        while pending:
            number, done = pending.pop()
            if done:
                order.append(number)
            elif number not in seen:
                seen.add(number)
                pending.append((number, True))
                if number != stop:
                    pending += [(arg, False) for arg in self.nodes[number].args]
        return order


@dataclass
class _Ranges:
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


class _Function:
    """The expression as a function of one node of it."""

    def __init__(self, graph: _Graph, at: int):
        self.graph, self.at = graph, at
        self.order = graph._reached(graph.root, at)
        constants = {n: v for n in self.order if (v := graph.nodes[n].constant) is not None}
        shapes = [value.shape for value in constants.values()]
        rank = len(graph.shape)
        self.extents = np.broadcast_shapes(*[(1,) * (rank - len(s)) + s for s in shapes], (1,) * rank)
        self.channels = int(np.prod(self.extents))
        self.fits = (
            self.channels <= _MANY_CHANNELS and np.broadcast_shapes(self.extents, graph.shape) == graph.shape
        )
        self.constants: dict[int, Array] = {}
        if self.fits:
            for n, v in constants.items():
                self.constants[n] = np.broadcast_to(v, self.extents).reshape(-1, 1) if v.ndim else v

    def __call__(self, x: Array, until: int | None = None) -> Array:
        """x: [C, R], or what broadcasts to it; until: the node to compute, by default the whole."""
        return self.evaluate(x, until)[self.graph.root if until is None else until]

    def evaluate(self, x: Array, until: int | None = None) -> dict[int, Array]:
        values: dict[int, Array] = {self.at: x, **self.constants}
        with np.errstate(all="ignore"):
            for n in self.order:
                if n not in values:
                    node = self.graph.nodes[n]
                    values[n] = _compute(node, [values[a] for a in node.args])
                if n == until:
                    break
        return values

    def first(self, low: Array, high: Array, node: int, holds: Callable[[Array], Array]) -> Array:
        """The first ordinal of each range, [C, R], at which what holds at its end and not at its beginning
        holds; of what changes once."""
        low, high = low.copy(), high.copy()
        while (high - low > 1).any():
            middle = (low + high) // 2
            true = holds(self(to_floats(middle), node))
            high, low = np.where(true, middle, high), np.where(true, low, middle)
        return high


def _compute(node: _Node, operands: Sequence[Array]) -> Array:
    name = node.name
    if name == "relax.clip":
        operands = [operands[0], *(np.asarray(o).astype(operands[0].dtype) for o in operands[1:])]
    if name in _MORE:
        return np.asarray(_MORE[name](*operands))
    return np.asarray(evaluate_operator(node.call, operands))


def _both_ways(a: Array, b: Array) -> Array:
    """The way of a sum of what goes these ways."""
    known = np.where(a == 0, b, np.where((b == 0) | (a == b), a, _UNKNOWN))
    return np.where((a == _UNKNOWN) | (b == _UNKNOWN), _UNKNOWN, known)


def _turned(way: Array, sign: Array | int) -> Array:
    return np.where(way == _UNKNOWN, _UNKNOWN, way * sign)


Cut = tuple[Array, Callable[[Array], Array], int]
"""(which ranges to cut, what holds behind the cut at the value of a node, that node)."""


def _derive(
    function: _Function, n: int, known: dict[int, _Ranges], low: Array, high: Array
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
            ends = [_Ranges(np.zeros_like(own.low), np.zeros_like(own.low), way)]
        for end in ends:
            stays = (np.abs(way) == 1) & (own.low != own.high) & (end.low == end.high)
            cut = cut or change(n, partial(np.equal, end.low), stays)
    elif name in _COMPARISONS:
        way = _turned(_both_ways(ways[0], _turned(ways[1], -1)), _COMPARISONS[name])
        cut = change(n, lambda v: v, np.abs(way) == 1)
    elif name in ("relax.equal", "relax.not_equal") or _to_bool(function, node):
        zero = _Ranges(np.zeros_like(a.low), np.zeros_like(a.low), np.zeros_like(ways[0]))
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
    if own.low.dtype.kind == "f":
        way = np.where((np.isnan(own.low) | np.isnan(own.high)) & (way != 0), _UNKNOWN, way)
    way = np.where((np.abs(way) == 1) & (own.low == own.high), 0, way)
    return np.where(low == high, 0, way), cut


def _of_stairs(n: int, own: _Ranges, way: Array) -> Cut | None:
    """Before the last step of what goes up or down by few."""
    with np.errstate(invalid="ignore"):
        few = np.abs(own.high.astype(float) - own.low.astype(float)) <= _MANY_STEPS
    last = own.high
    differs = few & (np.abs(way) == 1) & (own.low != own.high)
    return (differs, lambda v: v == last, n) if differs.any() else None


def _same_magnitude(graph: _Graph, a: int, b: int) -> bool:
    def inner(n: int) -> int:
        while graph.nodes[n].name in ("relax.abs", "relax.negative"):
            n = graph.nodes[n].args[0]
        return n

    return inner(a) == inner(b)


def _dtype_before(function: _Function, node: _Node) -> str:
    inner = function.graph.nodes[node.args[0]]
    return str(inner.constant.dtype) if inner.constant is not None else (
        dtype_of(inner.var) if inner.var is not None else "float32"
    )  # fmt: skip


def _to_bool(function: _Function, node: _Node) -> bool:
    return node.name == "relax.astype" and str(node.call.attrs.dtype) == "bool"


def _to_integers(function: _Function, node: _Node) -> bool:
    return "int" in str(node.call.attrs.dtype) and "float" in _dtype_before(function, node)


def _is_square(function: _Function, node: _Node) -> bool:
    if node.name != "relax.power":
        return False
    exponent = function.graph.nodes[node.args[1]].constant
    return exponent is not None and bool((exponent == 2).all())


def _ranges(function: _Function, low: Array, high: Array) -> tuple[Array, Array, _Ranges] | None:
    """(first ordinals, last ordinals, the whole expression), [C, R], of ranges on each of which it is
    constant; None where it is not known to be. A range whose last is before its first is empty."""
    while low.shape[1] <= _MANY_RANGES:
        empty = low > high
        first, last = function.evaluate(to_floats(low)), function.evaluate(to_floats(np.maximum(low, high)))
        known: dict[int, _Ranges] = {}
        cut: Cut | None = None
        for n in function.order:
            ends = [np.broadcast_to(v[n], low.shape) for v in (first, last)]
            known[n] = _Ranges(ends[0], ends[1], np.zeros(low.shape, int))
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


_ANYWHERE = np.array(
    [
        [-_INFINITE - 1, -_INFINITE - 1],
        [-_INFINITE, -2],
        [-1, -1],
        [0, 0],
        [1, _INFINITE - 1],
        [_INFINITE, _INFINITE],
    ]
)


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
    graph = _Graph(builder, expr)
    second: Steps | Values | None = None
    for at in graph.cuts()[:_MANY_CUTS]:
        function, x = _Function(graph, at), graph.nodes[at].var
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


def _of_truth(function: _Function, x: relax.Expr) -> Steps | Values | None:
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


def _moved(graph: _Graph, at: int) -> Callable[[Array], float] | None:
    """Of an expression with a detour: how far it is from what it means, at such numbers."""
    if graph.root == graph.written:
        return None

    def measure(x: Array) -> float:
        root = graph.root
        meant = _Function(graph, at)(x)
        graph.root = graph.written
        try:
            if any(
                graph.nodes[n].call is None and graph.nodes[n].constant is None and n != at
                for n in graph._reached(graph.root, at)
            ):
                return math.nan
            written = _Function(graph, at)(x)
        finally:
            graph.root = root
        return float(np.max(np.abs(written.astype(np.float64) - meant)))

    return measure


def _of_floats(
    function: _Function, x: relax.Expr, domain: tuple[bool, bool, str], moved: Callable[[Array], float] | None
) -> Steps | Values | None:
    negative, positive, zero = domain
    sample = np.broadcast_to(_spread(16), (function.channels, 32))
    if len(_distinct(function(sample).astype(np.float64))) > _MANY_VALUES:
        return None
    start = _ANYWHERE[[i for i in range(6) if (negative or i > 1) and (positive or i < 4)]]
    low, high = (np.tile(start[:, i], (function.channels, 1)) for i in (0, 1))
    found = _ranges(function, low, high)
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
                    runs.append([-_INFINITE - 1 if before is None else first, last])
            before = bool(chosen[channel, i])
        if runs and before:
            runs[-1][1] = _INFINITE
        # Between a negative and a positive range without zeros either will do.
        runs = [[-1 if a == 1 and not _holds(low, high, full, channel, -1) else a, b] for a, b in runs]
        if any(a == 0 or b == -1 for a, b in runs):
            return None
        rows.append(runs)
    most = max(map(len, rows))
    empty = [_INFINITE, -_INFINITE - 1]
    padded = np.array([[*runs, *[empty] * (most - len(runs))] for runs in rows], np.int64)
    return tuple((padded[:, i, 0], padded[:, i, 1]) for i in range(most)) if most else ()


def _holds(low: Array, high: Array, full: Array, channel: int, ordinal: int) -> bool:
    return bool((full[channel] & (low[channel] <= ordinal) & (high[channel] >= ordinal)).any())


def emit_truth(builder: relax.BlockBuilder, steps: Steps) -> relax.Expr:
    """A bool tensor: where the expression has the higher of its two values. NaN gives what the source gives;
    where that is NaN, or not the same in all channels, the lower one."""
    if dtype_of(steps.x) == "bool":
        return builder.emit(relax.op.logical_not(steps.x)) if steps.outside else steps.x
    x, shape = steps.x, steps.shape

    def constant(values: Array) -> relax.Expr:
        values = values + np.float32(0)  # no -0.0
        return relax.const(values[0] if (values == values[0]).all() else values.reshape(shape))

    def subnormal(values: Array) -> bool:
        return bool(((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any())

    def above(first: Array) -> relax.Expr:
        at, before = to_floats(first), to_floats(first - 1)
        if subnormal(at) and not subnormal(before):
            return builder.emit(relax.op.greater(x, constant(before)))
        return builder.emit(relax.op.greater_equal(x, constant(at)))

    def below(last: Array) -> relax.Expr:
        at, behind = to_floats(last), to_floats(last + 1)
        if subnormal(at) and not subnormal(behind):
            return builder.emit(relax.op.less(x, constant(behind)))
        return builder.emit(relax.op.less_equal(x, constant(at)))

    total: relax.Expr | None = None
    for first, last in steps.intervals:
        bounds = []
        open_below, open_above = first == -_INFINITE - 1, last == _INFINITE
        if not open_below.all() or open_above.all():
            bounds.append(above(first))
        if not open_above.all():
            bounds.append(below(last))
        within = reduce(lambda a, b: builder.emit(relax.op.logical_and(a, b)), bounds)
        total = within if total is None else builder.emit(relax.op.logical_or(total, within))
    if total is None:
        nowhere = relax.const(np.zeros((), bool))
        return builder.emit(relax.op.broadcast_to(nowhere, shape_of(x)))
    return builder.emit(relax.op.logical_not(total)) if steps.outside else total
