"""Expressions element by element, as nodes: what they are made of, and what they compute of whole arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.ordinals import to_floats
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

_MANY_NODES, _MANY_CHANNELS = 128, 4096

Array = np.ndarray

# ---- what the operators compute, of whole arrays


def _precisely(function: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda a: function(np.asarray(a, np.float64)).astype(np.asarray(a).dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])
_MORE: dict[str, Callable[..., Array]] = {
    "relax.sign": lambda a: np.subtract(a > 0, a < 0, dtype=np.asarray(a).dtype),  # 0 of NaN
    "relax.bitwise_and": np.bitwise_and, "relax.bitwise_or": np.bitwise_or, "relax.bitwise_not": np.invert,
    "relax.bitwise_xor": np.bitwise_xor,
    "relax.left_shift": np.left_shift, "relax.right_shift": np.right_shift,
    "relax.equal": np.equal, "relax.not_equal": np.not_equal,
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


@dataclass
class Node:
    """One operator, constant or tensor; args: numbers of other nodes."""

    var: relax.Expr | None
    call: Any = None  # relax.Call
    args: tuple[int, ...] = ()
    constant: Array | None = None

    @property
    def name(self) -> str:
        return self.call.op.name if self.call is not None else ""


class Graph:
    """An expression as nodes, operands first, equal ones once."""

    def __init__(self, builder: relax.BlockBuilder, expr: relax.Expr):
        self.builder, self.shape = builder, shape_of(expr)
        self.nodes: list[Node] = []
        self._known: dict[Any, int] = {}
        self._of: dict[relax.Var, int] = {}
        self.root = self._add(expr)
        self.written = self.root  # as the source has it
        self.root = self.without_detours(self.root, {})

    def _intern(self, key: Any, node: Node) -> int:
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(node)
        return self._known[key]

    def _constant(self, value: Array) -> int:
        value = shrunk(value) if value.ndim else value
        value = value.reshape(()) if value.size == 1 else value
        return self._intern((value.tobytes(), value.shape, value.dtype.str), Node(None, constant=value))

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
        leaf = Node(var)
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
        return self._intern(key, Node(var, made, args))

    def without_detours(self, number: int, done: dict[int, int]) -> int:
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
                total = self._joined(total, self.without_detours(term, done), sign)
            assert total is not None
            done[number] = total
            return total
        args = tuple(self.without_detours(arg, done) for arg in node.args)
        made = number
        if args != node.args and node.call is not None:
            made = self._intern((node.name, args, str(node.call.attrs)), Node(node.var, node.call, args))
        done[number] = made
        return made

    def _joined(self, total: int | None, term: int, sign: int) -> int:
        if total is None and sign > 0:
            return term
        left = self._constant(np.asarray(0, np.float32)) if total is None else total
        make = relax.op.add if sign > 0 else relax.op.subtract
        like = relax.Var("like", relax.TensorType((), "float32"))
        call = make(like, like)
        return self._intern((call.op.name, (left, term), "None"), Node(None, call, (left, term)))

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
        reached = self.reached(self.root, None)
        found = []
        for number in reversed(reached):
            node = self.nodes[number]
            if number == self.root or node.var is None or node.constant is not None:
                continue
            if shape_of(node.var) != self.shape or dtype_of(node.var) not in ("float32", "bool"):
                continue
            inside = self.reached(self.root, number)
            if all(n == number or self.nodes[n].call is not None or self.nodes[n].constant is not None
                   for n in inside):  # fmt: skip
                found.append(number)
        return found

    def reached(self, root: int, stop: int | None) -> list[int]:
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


class Function:
    """The expression as a function of one node of it."""

    def __init__(self, graph: Graph, at: int):
        self.graph, self.at = graph, at
        self.order = graph.reached(graph.root, at)
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
                    values[n] = compute(node, [values[a] for a in node.args])
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


def compute(node: Node, operands: Sequence[Array]) -> Array:
    name = node.name
    if name == "relax.clip":
        operands = [operands[0], *(np.asarray(o).astype(operands[0].dtype) for o in operands[1:])]
    if name in _MORE:
        return np.asarray(_MORE[name](*operands))
    return np.asarray(evaluate_operator(node.call, operands))
