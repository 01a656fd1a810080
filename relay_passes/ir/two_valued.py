"""Which activations take only two values, and which weights are +-alpha per output channel.

An activation is judged by how it is made, never by its name: a `where` between two numbers, a comparison that
was cast to a number, `sign`, what is clipped to a range with two integers in it and rounded, and whatever
keeps two values two: scaling and shifting by one number, reshaping, pooling by maximum, masking and products
of such. A weight is judged by its values.

`sign` is 0 at 0, and a bit has no third value. So it depends on what stands before it (`bound_values.py`):
over what is never negative it takes 0 and 1, over what is never 0 it takes -1 and +1, and both are exact.
Where nothing but an accident of floats is exactly 0, it is taken as +1 there, and `TwoValued.accident` says
so; where 0 is a matter of course, it has three values. What is computed of a sign alone, element by element,
takes the values that it gives for -1, 0 and 1: `clip(sign(x), 0, 1)` is 1 where x is above 0, and exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    shape_of,
)
from relay_passes.ir.value_range import ValueRange, Zero
from schedules.parts.epilogue import OPERATORS, evaluate_operator

MOVES = {
    "relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze", "relax.flatten",
    "relax.strided_slice", "relax.broadcast_to", "relax.nn.max_pool2d", "relax.nn.max_pool1d",
}  # fmt: skip


@dataclass(frozen=True)
class TwoValued:
    """accident: it has a third value in the source, but only where a float is exactly 0 by accident."""

    low: float
    high: float
    accident: bool = False


def number(expr: relax.Expr) -> float | None:
    """The one number that a constant holds everywhere."""
    if is_constant(expr):
        values = constant_value(expr)
        if values.size and values.dtype != np.bool_ and (values == values.flat[0]).all():
            return float(values.flat[0])
    elif hasattr(expr, "value") and isinstance(expr.value, (int, float)):
        return float(expr.value)
    return None


def two_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> TwoValued | None:
    """The two numbers that this activation takes, or None where that is not known."""
    found = _two_values(builder, expr, numbers)
    if found is None or found.accident:
        steps = _of_a_sign(builder, expr)
        if steps and len(set(steps.values)) == 2:
            return TwoValued(min(steps.values), max(steps.values))
    return found


def _two_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> TwoValued | None:
    value = made_by(builder, expr)
    if not is_call(value):
        return None
    name = value.op.name
    if name == "relax.where":
        yes, no = number(value.args[1]), number(value.args[2])
        if yes is not None and no is not None:
            return TwoValued(min(yes, no), max(yes, no)) if yes != no else None
        return _union(_values_of(builder, arg, numbers) for arg in value.args[1:])
    if name == "relax.sign":
        return _signs(numbers.of(builder, value.args[0]))
    if name == "relax.astype":
        if dtype_of(value.args[0]) == "bool":
            return TwoValued(0.0, 1.0)
        inner_values = two_values(builder, value.args[0], numbers)
        return inner_values and _both(inner_values, lambda v: v.astype(dtype_of(expr)))
    if name in MOVES:
        return two_values(builder, value.args[0], numbers)
    if name == "relax.round":
        inner = numbers.of(builder, value.args[0])
        low, high = np.rint([inner.low.min(), inner.high.max()])
        if high - low == 1:
            return TwoValued(float(low), float(high))
    if name == "relax.multiply" and not any(is_constant(arg) for arg in value.args):
        return _multiplied(*(two_values(builder, arg, numbers) for arg in value.args))
    return _mapped(builder, value, numbers) if name in OPERATORS else None


def _values_of(
    builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues
) -> TwoValued | float | None:
    one = number(expr)
    return two_values(builder, expr, numbers) if one is None else one


def _union(branches: Iterable[TwoValued | float | None]) -> TwoValued | None:
    """Of what is one or the other, as a mask makes it."""
    found: set[float] = set()
    accident = False
    for branch in branches:
        if branch is None:
            return None
        found |= {branch.low, branch.high} if isinstance(branch, TwoValued) else {branch}
        accident |= isinstance(branch, TwoValued) and branch.accident
    return TwoValued(min(found), max(found), accident) if len(found) == 2 else None


def _multiplied(a: TwoValued | None, b: TwoValued | None) -> TwoValued | None:
    """Of two activations of 0 and another number each."""
    if a is None or b is None or a.accident or b.accident or a.low * a.high or b.low * b.high:
        return None
    other = float(np.float32(a.low + a.high) * np.float32(b.low + b.high))
    return TwoValued(min(0.0, other), max(0.0, other)) if other and np.isfinite(other) else None


@dataclass(frozen=True)
class _Steps:
    """What is computed of `sign(x)`; values: where x is below 0, 0, and above it."""

    x: relax.Expr
    values: tuple[float, float, float]


_DEEPEST = 16  # operators behind a sign
_EQUALITIES = {"relax.equal": np.equal, "relax.not_equal": np.not_equal}


def _of_a_sign(builder: relax.BlockBuilder, expr: relax.Expr) -> _Steps | None:
    """None where anything else but a sign and numbers goes into it, element by element."""
    shape = shape_of(expr)
    known: dict[relax.Var, np.ndarray | None] = {}
    signs: list[relax.Expr] = []

    def values_of(arg: relax.Expr, depth: int = 0) -> np.ndarray | None:
        """At -1, 0 and 1 of the sign."""
        if (one := number(arg)) is not None:
            return np.asarray(one, dtype_of(arg) if is_tensor(arg) else "float32")
        if not isinstance(arg, relax.Var) or shape_of(arg) != shape:
            return None
        if arg not in known:
            known[arg] = computed(made_by(builder, arg), depth)
        return known[arg]

    def computed(value: relax.Expr, depth: int) -> np.ndarray | None:
        if not is_call(value) or depth > _DEEPEST:
            return None
        if value.op.name == "relax.sign":
            signs.append(value.args[0])
            return np.asarray([-1, 0, 1], dtype_of(value.args[0]))
        if value.op.name not in OPERATORS and value.op.name not in _EQUALITIES:
            return None
        operands: list[np.ndarray] = []
        for arg in value.args:
            if (operand := values_of(arg, depth + 1)) is None:
                return None
            operands.append(operand)
        if equality := _EQUALITIES.get(value.op.name):
            return equality(operands[0], operands[1])
        return evaluate_operator(value, operands)

    values = values_of(expr)
    alike = signs and all(x.same_as(signs[0]) for x in signs)
    if values is None or not alike or not np.isfinite(values).all():
        return None
    below, at, above = (float(v) for v in np.broadcast_to(values, (3,)))
    return _Steps(signs[0], (below, at, above))


def _signs(x: ValueRange) -> TwoValued | None:
    """The values of `sign` over these numbers."""
    if x.not_negative:
        return TwoValued(0.0, 1.0)
    if x.not_positive:
        return TwoValued(-1.0, 0.0)
    return None if x.zero is Zero.COMMON else TwoValued(-1.0, 1.0, x.zero is Zero.ACCIDENTAL)


@dataclass(frozen=True)
class ThreeValued:
    """-height, 0 and height; cause: why 0 is a matter of course; above, below: where it is which."""

    height: float
    cause: str
    above: Callable[[relax.Expr], relax.Expr]
    below: Callable[[relax.Expr], relax.Expr]


def three_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> ThreeValued | None:
    """Of an activation that is a sign of three values, scaled by a number and moved; else None.

    `above` and `below` take the activation itself, or the same elements in another order.
    """
    height, value = np.float32(1), made_by(builder, expr)
    while is_call(value, *MOVES, "relax.multiply", "relax.divide", "relax.negative", "relax.astype"):
        numbers_beside = [number(arg) for arg in value.args]
        moving = 0 if value.op.name in MOVES else numbers_beside.index(None)
        if value.op.name not in MOVES:
            if numbers_beside.count(None) != 1 or "float" not in dtype_of(value):
                return None
            operands = [height if n is None else np.float32(n) for n in numbers_beside]
            height = np.abs(np.float32(evaluate_operator(value, operands)))
        value = made_by(builder, value.args[moving])
    if not is_call(value, "relax.sign") or not np.isfinite(height) or height == 0:
        return None
    before = numbers.of(builder, value.args[0])
    cause = None if _signs(before) else before.zero_cause()
    zero = relax.const(0.0, "float32")
    if cause is None:
        return None
    return ThreeValued(
        float(height),
        cause,
        lambda x: builder.emit(relax.op.greater(x, zero)),
        lambda x: builder.emit(relax.op.less(x, zero)),
    )


_AFFINE = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide"}


def _mapped(builder: relax.BlockBuilder, value: relax.Call, numbers: BoundValues) -> TwoValued | None:
    """The two values after an operator whose other operands are numbers."""
    moving = [i for i, arg in enumerate(value.args) if number(arg) is None]
    if len(moving) != 1 or shape_of(value.args[moving[0]]) != shape_of(value):
        return None
    inner = two_values(builder, value.args[moving[0]], numbers)

    def image(v: np.float32) -> float:
        operands = [v if i in moving else np.float32(number(arg)) for i, arg in enumerate(value.args)]
        return evaluate_operator(value, operands).item()

    return _both(inner, image) if inner else None


def _both(values: TwoValued, image: Callable[[np.float32], float]) -> TwoValued | None:
    """What the two values become, in float32 as the network computes it; None where they become one."""
    low, high = sorted(float(np.float32(image(np.float32(v)))) for v in (values.low, values.high))
    return replace(values, low=low, high=high) if np.isfinite([low, high]).all() and low < high else None


def truth(
    builder: relax.BlockBuilder, expr: relax.Expr, values: TwoValued, numbers: BoundValues
) -> relax.Expr:
    """A bool tensor, true where a two-valued activation has the higher of its values."""
    value = made_by(builder, expr)
    name = value.op.name
    if not values.accident and (steps := _of_a_sign(builder, expr)) and len(set(steps.values)) == 2:
        return _where_higher(builder, steps)
    if name == "relax.where":
        condition, *branches = value.args
        if shape_of(condition) != shape_of(expr):
            condition = builder.emit(relax.op.broadcast_to(condition, shape_of(expr)))
        truths = []
        for branch in branches:
            own = _values_of(builder, branch, numbers)
            one = truth(builder, branch, own, numbers) if isinstance(own, TwoValued) else own == values.high
            truths.append(relax.const(one) if isinstance(one, bool) else one)
        if all(map(is_constant, truths)):
            return condition if constant_value(truths[0]) else _opposite(builder, condition)
        return builder.emit(relax.op.where(condition, *truths))
    if name == "relax.sign":
        compare = relax.op.greater if values.low == 0 else relax.op.greater_equal
        return builder.emit(compare(value.args[0], relax.const(0, dtype_of(value.args[0]))))
    if name == "relax.astype" and dtype_of(value.args[0]) == "bool":
        return value.args[0]
    if name == "relax.multiply" and not any(is_constant(arg) for arg in value.args):
        others = []  # where each is not 0
        for arg in value.args:
            if (own := two_values(builder, arg, numbers)) is not None:
                higher = truth(builder, arg, own, numbers)
                others.append(_opposite(builder, higher) if own.high == 0.0 else higher)
        met = builder.emit(relax.op.logical_and(*others))
        return _opposite(builder, met) if values.high == 0.0 else met
    if name in _AFFINE or name == "relax.negative":
        for i, inner in enumerate(value.args):
            inner_values = two_values(builder, inner, numbers)
            if inner_values is not None:
                by = [number(arg) for j, arg in enumerate(value.args) if j != i]
                falls = name == "relax.negative" or (name == "relax.subtract" and i == 1)
                falls ^= name in ("relax.multiply", "relax.divide") and (by[0] or 0.0) < 0
                higher = truth(builder, inner, inner_values, numbers)
                return _opposite(builder, higher) if falls else higher
    middle = relax.const((values.low + values.high) / 2, "float32")
    return builder.emit(relax.op.greater_equal(expr, middle))  # equal: moved from a `sign` of 0, which is +1


def _where_higher(builder: relax.BlockBuilder, steps: _Steps) -> relax.Expr:
    zero = relax.const(0, dtype_of(steps.x))
    below, at, above = (value == max(steps.values) for value in steps.values)
    compare = {
        (False, False, True): relax.op.greater,
        (False, True, True): relax.op.greater_equal,
        (True, False, False): relax.op.less,
        (True, True, False): relax.op.less_equal,
        (False, True, False): relax.op.equal,
        (True, False, True): relax.op.not_equal,
    }[below, at, above]
    return builder.emit(compare(steps.x, zero))


def _opposite(builder: relax.BlockBuilder, condition: relax.Expr) -> relax.Expr:
    return builder.emit(relax.op.logical_not(condition))


@dataclass(frozen=True)
class BinaryWeights:
    """signs: bool, true where positive; alpha: float32 [O], >= 0; weights = alpha * (2 * signs - 1)."""

    signs: np.ndarray
    alpha: np.ndarray


def binary_weights(weights: np.ndarray) -> BinaryWeights | str:
    """weights: [O, ...]. The reason in words where they are not +-alpha per output channel.

    A channel that is 0 everywhere has alpha = 0: its signs do not matter.
    """
    flat = np.abs(weights.reshape(len(weights), -1))
    alpha = flat.max(1)
    odd = np.nonzero((flat != alpha[:, None]).any(1))[0]
    if len(odd):
        channel = int(odd[0])
        magnitudes = len(np.unique(flat[channel]))
        zeros = bool((flat[channel] == 0).any())
        return (
            f"its weights are not +-alpha: output channel {channel} has {magnitudes} different magnitudes"
            + (", 0 among them" if zeros else "")
        )
    return BinaryWeights(weights >= 0, alpha.astype(np.float32))
