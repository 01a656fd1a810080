"""Which activations take only two values, and which weights are +-alpha per output channel.

An activation is judged by how it is made, never by its name: a `where` between two numbers, a comparison that
was cast to a number, `sign`, what is clipped to a range with two integers in it and rounded, and whatever
keeps two values two: scaling and shifting by one number, reshaping, pooling by maximum. A weight is judged by
its values.

`sign` is 0 at 0, and a bit has no third value. So it depends on what stands before it (`bound_values.py`):
over what is never negative it takes 0 and 1, over what is never 0 it takes -1 and +1, and both are exact.
Where nothing but an accident of floats is exactly 0, it is taken as +1 there, and `TwoValued.accident` says
so; where 0 is a matter of course, it has three values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.rewrite import constant_value, dtype_of, is_call, is_constant, made_by, shape_of
from relay_passes.ir.value_range import ValueRange, Zero
from schedules.parts.epilogue import OPERATORS, evaluate_operator

_COMPARISONS = {
    "relax.greater_equal",
    "relax.greater",
    "relax.less_equal",
    "relax.less",
    "relax.equal",
    "relax.not_equal",
}
_BOOLEAN = _COMPARISONS | {"relax.logical_not", "relax.logical_and", "relax.logical_or", "relax.logical_xor"}
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
    value = made_by(builder, expr)
    if not is_call(value):
        return None
    name = value.op.name
    if name == "relax.where":
        yes, no = number(value.args[1]), number(value.args[2])
        if yes is None or no is None or yes == no or shape_of(value.args[0]) != shape_of(value):
            return None
        return TwoValued(min(yes, no), max(yes, no))
    if name == "relax.sign":
        return _signs(numbers.of(builder, value.args[0]))
    if name == "relax.astype":
        if is_call(made_by(builder, value.args[0]), *_BOOLEAN):
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
    return _mapped(builder, value, numbers) if name in OPERATORS else None


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
    if name == "relax.where":
        condition, yes, no = value.args
        return condition if (number(yes) or 0.0) > (number(no) or 0.0) else _opposite(builder, condition)
    if name == "relax.sign":
        compare = relax.op.greater if values.low == 0 else relax.op.greater_equal
        return builder.emit(compare(value.args[0], relax.const(0, dtype_of(value.args[0]))))
    if name == "relax.astype" and is_call(made_by(builder, value.args[0]), *_BOOLEAN):
        return value.args[0]
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
