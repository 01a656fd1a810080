"""Which activations take only two values, and which weights are +-alpha, or two numbers, per output channel.

An activation is judged by how it is made, never by its name: a `where` between two numbers, a comparison that
was cast to a number, `sign`, what is clipped to a range with two integers in it and rounded, and whatever
keeps two values two: scaling and shifting by one number, reshaping, pooling by maximum, masking and products
of such. A weight is judged by its values.

`sign` is 0 at 0, and a bit has no third value. So it depends on what stands before it (`bound_values.py`):
over what is never negative it takes 0 and 1, over what is never 0 it takes -1 and +1, and both are exact.
Where nothing but an accident of floats is exactly 0, it is taken as +1 there, and `TwoValued.accident` says
so; where 0 is a matter of course, it has three values. What is computed of one tensor alone, element by
element, is judged by the values that it takes (`step_functions.py`): `clip(sign(x), 0, 1)` is 1 where x is
above 0, and exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    made_by,
    shape_of,
)
from relay_passes.ir.step_functions import ALIKE, Steps, Values, emit_truth, step_function
from relay_passes.ir.transfers.operands import fields
from relay_passes.ir.value_range import ValueRange, Zero
from schedules.parts.epilogue import OPERATORS, evaluate_operator

MOVES = {
    "relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze", "relax.flatten",
    "relax.strided_slice", "relax.broadcast_to", "relax.nn.max_pool2d", "relax.nn.max_pool1d",
    "relax.take", "relax.flip", "relax.tile", "relax.repeat", "relax.roll", "relax.nn.pixel_shuffle",
    "relax.gather_elements", "relax.gather_nd", "relax.index_tensor", "relax.dynamic_strided_slice",
}  # fmt: skip


def moved_from(builder: relax.BlockBuilder, value: Any) -> relax.Expr | None:
    """The tensor whose elements these are, in other places; None where it is not made so."""
    if isinstance(value, relax.TupleGetItem):
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return made.fields[value.index]
        return made.args[0] if is_call(made, "relax.split") else None
    if not is_call(value):
        return None
    if value.op.name == "relax.image.resize2d":
        return value.args[0] if "nearest" in str(value.attrs.method) else None
    if value.op.name == "relax.nn.pad":
        return value.args[0] if str(value.attrs.pad_mode) != "constant" else None
    return value.args[0] if value.op.name in MOVES else None


@dataclass(frozen=True)
class TwoValued:
    """accident: it has a third value in the source, but only where a float is exactly 0 by accident; moved:
    how far rounding moves it from the two in the source."""

    low: float
    high: float
    accident: bool = False
    moved: float | None = None

    @property
    def levels(self) -> tuple[float, float] | None:
        """The two, where they are not -a and a, nor 0 and another."""
        plain = self.low == -self.high or 0.0 in (self.low, self.high)
        return None if plain else (self.low, self.high)


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
    found, steps = _judged(builder, expr, numbers)
    return found if steps is None else TwoValued(steps.low, steps.high, steps.accident, steps.moved)


def _judged(
    builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues
) -> tuple[TwoValued | None, Steps | None]:
    """The two values by how it is made; by what it computes, where that says more."""
    found = _two_values(builder, expr, numbers)
    if found is not None and not found.accident:
        return found, None
    steps = steps_of(builder, expr, numbers)
    better = isinstance(steps, Steps) and (found is None or not steps.accident)
    return found, steps if better and isinstance(steps, Steps) else None


def steps_of(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Steps | Values | None:
    """See `step_function`."""

    def domain(x: relax.Expr) -> tuple[bool, bool, str]:
        known = numbers.of(builder, x)
        return not known.not_negative, not known.not_positive, known.zero.value

    if expr not in numbers.steps:
        numbers.steps[expr] = step_function(builder, expr, domain)
    return numbers.steps[expr]


def _two_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> TwoValued | None:
    value = made_by(builder, expr)
    if (source := moved_from(builder, value)) is not None:
        return two_values(builder, source, numbers)
    if not is_call(value):
        return None
    name = value.op.name
    if name in ("relax.concat", "relax.stack"):
        return _union(_values_of(builder, part, numbers) for part in fields(builder, value.args[0]))
    if name == "relax.nn.pad":
        inner = two_values(builder, value.args[0], numbers)
        return inner if inner and float(value.attrs.pad_value) in (inner.low, inner.high) else None
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
        inner_values = _two_values(builder, value.args[0], numbers)
        return inner_values and _both(inner_values, lambda v: v.astype(dtype_of(expr)))
    if name == "relax.round":
        reached = numbers.of(builder, value.args[0])
        low, high = np.rint([reached.low.min(), reached.high.max()])
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
    moved: list[float] = []
    for branch in branches:
        if branch is None:
            return None
        found |= {branch.low, branch.high} if isinstance(branch, TwoValued) else {branch}
        if isinstance(branch, TwoValued):
            accident |= branch.accident
            moved += [] if branch.moved is None else [branch.moved]
    return TwoValued(min(found), max(found), accident, max(moved, default=None)) if len(found) == 2 else None


def _multiplied(a: TwoValued | None, b: TwoValued | None) -> TwoValued | None:
    """Of two activations of 0 and another number each."""
    if a is None or b is None or a.accident or b.accident or a.low * a.high or b.low * b.high:
        return None
    other = float(np.float32(a.low + a.high) * np.float32(b.low + b.high))
    return TwoValued(min(0.0, other), max(0.0, other)) if other and np.isfinite(other) else None


def _signs(x: ValueRange) -> TwoValued | None:
    """The values of `sign` over these numbers."""
    if x.not_negative:
        return TwoValued(0.0, 1.0)
    if x.not_positive:
        return TwoValued(-1.0, 0.0)
    return None if x.zero is Zero.COMMON else TwoValued(-1.0, 1.0, x.zero is Zero.ACCIDENTAL)


@dataclass(frozen=True)
class ThreeValued:
    """-height, 0 and height; cause: why 0 is a matter of course; above, below: where it is which; moved: see
    `TwoValued`."""

    height: float
    cause: str
    above: Callable[[relax.Expr], relax.Expr]
    below: Callable[[relax.Expr], relax.Expr]
    moved: float | None = None


def three_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> ThreeValued | None:
    """Of an activation that is a sign of three values, scaled by a number and moved; else None.

    `above` and `below` take the activation itself, or the same elements in another order.
    """
    height, value = np.float32(1), made_by(builder, expr)
    while True:
        if (source := moved_from(builder, value)) is not None:
            expr = source
        elif is_call(value, "relax.multiply", "relax.divide", "relax.negative", "relax.astype"):
            numbers_beside = [number(arg) for arg in value.args]
            if numbers_beside.count(None) != 1 or "float" not in dtype_of(value):
                break
            operands = [height if n is None else np.float32(n) for n in numbers_beside]
            height = np.abs(np.float32(evaluate_operator(value, operands)))
            expr = value.args[numbers_beside.index(None)]
        else:
            break
        value = made_by(builder, expr)
    if not np.isfinite(height) or height == 0:
        return None
    moved = None
    if is_call(value, "relax.sign"):
        before = numbers.of(builder, value.args[0])
        cause = None if _signs(before) else before.zero_cause()
    else:
        steps = steps_of(builder, expr, numbers)
        if not isinstance(steps, Values) or not steps.zero or steps.x is None:
            return None
        cause = numbers.of(builder, steps.x).zero_cause()
        moved = None if steps.moved is None else float(height) * steps.moved
        height *= np.float32(max(steps.found))
    zero = relax.const(0.0, "float32")
    if cause is None:
        return None
    return ThreeValued(
        float(height),
        cause,
        lambda x: builder.emit(relax.op.greater(x, zero)),
        lambda x: builder.emit(relax.op.less(x, zero)),
        moved,
    )


_AFFINE = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide"}


def _mapped(builder: relax.BlockBuilder, value: relax.Call, numbers: BoundValues) -> TwoValued | None:
    """The two values after an operator whose other operands are numbers."""
    moving = [i for i, arg in enumerate(value.args) if number(arg) is None]
    if len(moving) != 1 or shape_of(value.args[moving[0]]) != shape_of(value):
        return None
    inner = _two_values(builder, value.args[moving[0]], numbers)

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
    name = value.op.name if is_call(value) else ""
    if (steps := _judged(builder, expr, numbers)[1]) is not None:
        return emit_truth(builder, steps)
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


def _opposite(builder: relax.BlockBuilder, condition: relax.Expr) -> relax.Expr:
    return builder.emit(relax.op.logical_not(condition))


@dataclass(frozen=True)
class BinaryWeights:
    """signs: bool, true for the higher value; alpha: float32 [O], >= 0; beta: float32 [O], or None for 0;
    weights = alpha * (2 * signs - 1) + beta, but for `moved`, relative to alpha: by how much rounding moved
    them."""

    signs: np.ndarray
    alpha: np.ndarray
    moved: float = 0.0
    beta: np.ndarray | None = None


def binary_weights(weights: np.ndarray) -> BinaryWeights | str:
    """weights: [O, ...]. The reason in words where they are not two numbers per output channel.

    A channel that is 0 everywhere has alpha = 0: its signs do not matter.
    """
    flat = np.abs(weights.reshape(len(weights), -1))
    alpha = flat.max(1)
    if (flat == alpha[:, None]).all():
        return BinaryWeights(weights >= 0, alpha.astype(np.float32))
    middle = np.median(flat, 1).astype(np.float32)  # of an odd number, and of most others, one of them
    off = np.abs(flat.astype(np.float64) - middle[:, None]).max(1)
    moved = off / np.where(middle, middle, 1)
    signs, beta = weights >= 0, np.zeros_like(middle)
    for channel in np.nonzero(off > ALIKE * middle)[0]:
        values = weights[channel].astype(np.float64)
        higher = values > (values.min() + values.max()) / 2
        low, high = (np.median(values[side]) if side.any() else np.nan for side in (~higher, higher))
        moved[channel] = 2 * np.abs(values - np.where(higher, high, low)).max() / (high - low)
        if not moved[channel] <= ALIKE:  # NaN too, of weights that are not finite
            count, zeros = len(np.unique(values)), ", 0 among them" if (values == 0).any() else ""
            return (
                "its weights are not +-alpha, nor alpha s + beta: "
                f"output channel {channel} has {count} different values{zeros}"
            )
        signs[channel], middle[channel], beta[channel] = higher, (high - low) / 2, (high + low) / 2
    return BinaryWeights(signs, middle, float(moved.max()), beta if beta.any() else None)
