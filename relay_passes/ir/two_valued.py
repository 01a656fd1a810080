"""Which activations take only two values.

An activation is judged by how it is made, never by its name: a `where` between two numbers, a comparison that
was cast to a number, `sign`, what is clipped to a range with two integers in it and rounded, and whatever
keeps two values two: scaling and shifting by one number, reshaping, pooling by maximum, masking and products
of such.

`sign` is 0 at 0, and a bit has no third value. So it depends on what stands before it (`bound_values.py`):
over what is never negative it takes 0 and 1, over what is never 0 it takes -1 and +1, and both are exact.
Where nothing but an accident of floats is exactly 0, it is taken as +1 there, and `TwoValued.accident` says
so; where 0 is a matter of course, it has three values. What is computed of one tensor alone, element by
element, is judged by the values that it takes (`step_functions.py`): `clip(sign(x), 0, 1)` is 1 where x is
above 0, and exact. An activation of up to eight values that are sums of two or three scales is as many planes
of bits (`Planes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

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
from relay_passes.ir.step_functions import Steps, Values, emit_truth, step_function
from relay_passes.ir.transfers.operands import fields
from relay_passes.ir.value_range import ValueRange, Zero
from schedules.parts.epilogue import OPERATORS, evaluate_operator

MOVES = {
    "relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.squeeze", "relax.flatten",
    "relax.strided_slice", "relax.broadcast_to", "relax.nn.max_pool2d", "relax.nn.max_pool1d",
    "relax.take", "relax.flip", "relax.tile", "relax.repeat", "relax.roll", "relax.nn.pixel_shuffle",
    "relax.gather_elements", "relax.gather_nd", "relax.index_tensor", "relax.dynamic_strided_slice",
    "relax.max", "relax.min", "relax.nn.max_pool3d", "relax.nn.adaptive_max_pool2d", "relax.sort",
}  # fmt: skip

WRITES = {"relax.scatter_nd": 2, "relax.scatter_elements": 2, "relax.slice_scatter": 1}
"""Which put one operand into places of their first: that operand's position."""


def _replaces(value: relax.Call) -> bool:
    return str(getattr(value.attrs, "reduction", "update")) == "update"


def moved_from(builder: relax.BlockBuilder, value: Any) -> relax.Expr | None:
    """The tensor whose elements these are, in other places; None where it is not made so."""
    if isinstance(value, relax.TupleGetItem):
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return made.fields[value.index]
        if is_call(made, "relax.topk"):  # with the numbers, their places
            return made.args[0] if value.index == 0 and str(made.attrs.ret_type) != "indices" else None
        return made.args[0] if is_call(made, "relax.split") else None
    if not is_call(value):
        return None
    if value.op.name == "relax.image.resize2d":
        return value.args[0] if "nearest" in str(value.attrs.method) else None
    if value.op.name == "relax.nn.pad":
        crops = all(int(width) <= 0 for width in value.attrs.pad_width)
        return value.args[0] if crops or str(value.attrs.pad_mode) != "constant" else None
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
    if steps is not None:
        return TwoValued(steps.low, steps.high, steps.accident, steps.moved)
    if found is None and (few := few_values(builder, expr, numbers)) and len(few.found) == 2:
        return TwoValued(*few.found, moved=few.moved)
    return found


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
    if is_constant(value):
        return _union(np.unique(constant_value(value)).tolist()) if "float" in dtype_of(expr) else None
    if not is_call(value):
        return None
    name = value.op.name
    if name in ("relax.concat", "relax.stack"):
        return _union(_values_of(builder, part, numbers) for part in fields(builder, value.args[0]))
    if (written := WRITES.get(name)) is not None and _replaces(value):
        return _union(_values_of(builder, value.args[i], numbers) for i in (0, written))
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
    """Of two activations of 0 and another number each, or of -a and a, and -b and b."""
    if a is None or b is None or a.moved is not None or b.moved is not None:
        return None
    if a.low == -a.high and b.low == -b.high:
        other = float(np.float32(a.high) * np.float32(b.high))
        both = TwoValued(-other, other, a.accident or b.accident)
        return both if 0 < other < np.inf else None
    if a.accident or b.accident or a.low * a.high or b.low * b.high:
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


@dataclass(frozen=True)
class Plane(TwoValued):
    """One of the two-valued tensors whose sum an activation is; bits: of the activation, or of the same
    elements in another order, where this one has its higher value; index: from 1."""

    index: int = 1
    bits: Callable[[relax.Expr], relax.Expr] = lambda x: x


@dataclass(frozen=True)
class Planes:
    """An activation that is the sum of its parts; values: those that it may take, in order; moved: see
    `TwoValued`."""

    parts: tuple[Plane, ...]
    values: tuple[float, ...]
    moved: float | None = None


def planes_of(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Planes | None:
    """Of an activation of a few values that so many bits, `MANY_PLANES` at most, add up to; else None.

    It is a sum of two-valued tensors, or takes the values of such a sum: 2 bits are two planes, of which one
    weighs twice as much.
    """
    if summed := _summed(builder, expr, numbers):
        return summed
    few = few_values(builder, expr, numbers)
    if few is None or (found := subset_sums(few.found)) is None:
        return None
    (base, scales), values = found, few.found
    signs = [codes_of(value, base, scales) for value in values]
    parts = []
    for i, scale in enumerate(scales):
        middle = base if i == 0 else 0.0
        parts.append(
            Plane(
                middle - scale,
                middle + scale,
                index=i + 1,
                bits=partial(_among, builder, values, [bool(s[i] > 0) for s in signs]),
            )
        )
    return Planes(tuple(_from_zero(parts)), values, few.moved)


def _from_zero(parts: list[Plane]) -> list[Plane]:
    """The same sum of parts that are 0 or another number each, where that is what it is: they need no
    correction at borders."""
    least = sum(part.low for part in parts)
    largest = max(part.high - part.low for part in parts)
    if abs(least) > _NOTHING * largest:
        return parts
    return [replace(part, low=0.0, high=part.high - part.low) for part in parts]


def _among(
    builder: relax.BlockBuilder, values: Sequence[float], chosen: Sequence[bool], x: relax.Expr
) -> relax.Expr:
    """Where x is one of the values that are chosen; values: in order, all that x takes."""
    found: relax.Expr | None = None
    for below, above, before, after in zip(values, values[1:], chosen, chosen[1:], strict=False):
        if before != after:
            middle = relax.const((below + above) / 2, "float32")
            beyond = builder.emit(relax.op.greater_equal(x, middle))
            found = beyond if found is None else builder.emit(relax.op.logical_xor(found, beyond))
    assert found is not None
    return _opposite(builder, found) if chosen[0] else found


def few_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Values | None:
    """All that an activation takes, in order, but for accidents of floats; None where that is not known, or
    more than so many planes of bits add up to."""
    if expr not in numbers.few:
        numbers.few[expr] = _few_values(builder, expr, numbers)
    return numbers.few[expr]


def _few_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Values | None:
    if (one := number(expr)) is not None:
        return Values((one,))
    found, steps = _judged(builder, expr, numbers)
    if (two := steps or found) is not None:
        return None if two.accident else Values((two.low, two.high), moved=two.moved)
    value = made_by(builder, expr)
    if (source := moved_from(builder, value)) is not None:
        return few_values(builder, source, numbers)
    if isinstance(taken := steps_of(builder, expr, numbers), Values):
        return _distinct(taken.found, [taken])
    if not is_call(value):
        return None
    name = value.op.name
    if name in ("relax.concat", "relax.stack"):
        operands = fields(builder, value.args[0])
    elif name == "relax.nn.pad":
        operands = [value.args[0], relax.const(float(value.attrs.pad_value), "float32")]
    elif name == "relax.where":
        operands = value.args[1:]
    elif name in WRITES and _replaces(value):
        operands = [value.args[0], value.args[WRITES[name]]]
    elif name in OPERATORS and all(dtype_of(arg) == "float32" for arg in value.args if is_tensor(arg)):
        operands = value.args
    else:
        return None
    sets = [few for operand in operands if (few := few_values(builder, operand, numbers)) is not None]
    if len(sets) < len(operands):
        return None
    if name not in OPERATORS or name == "relax.where":
        return _distinct((v for few in sets for v in few.found), sets)
    if any(few.moved is not None for few in sets):
        return None
    with np.errstate(all="ignore"):
        results = [
            evaluate_operator(value, pick)
            for pick in product(*(np.array(few.found, np.float32) for few in sets))
        ]
    return _distinct((float(v) for v in results), sets)


def _distinct(values: Iterable[float], of: Sequence[Values]) -> Values | None:
    found = sorted({v + 0.0 for v in values})  # no -0.0
    moves = [few.moved for few in of if few.moved is not None]
    if len(found) > _MANY_VALUES or not np.isfinite(found).all():
        return None
    return Values(tuple(found), moved=max(moves, default=None))


def _summed(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Planes | None:
    """Of a sum or difference of two-valued tensors, as it is written."""
    terms, pending = [], [(expr, 1)]
    while pending:
        term, sign = pending.pop()
        made = made_by(builder, term)
        if (own := two_values(builder, term, numbers)) is not None and own.moved is None and not own.accident:
            terms.append((term, own, sign))
        elif is_call(made, "relax.add", "relax.subtract") and all(
            not is_constant(arg) and shape_of(arg) == shape_of(expr) for arg in made.args
        ):
            turned = -sign if made.op.name == "relax.subtract" else sign
            pending += [(made.args[1], turned), (made.args[0], sign)]
        else:
            return None
        if len(terms) > MANY_PLANES:
            return None
    if len(terms) < 2:
        return None

    def bits(term: relax.Expr, own: TwoValued, sign: int) -> Callable[[relax.Expr], relax.Expr]:
        def make(x: relax.Expr) -> relax.Expr:
            higher = truth(builder, term, own, numbers)
            return higher if sign > 0 else _opposite(builder, higher)

        return make

    parts = []
    for i, (term, own, sign) in enumerate(terms):
        low, high = sorted((sign * own.low, sign * own.high))
        parts.append(Plane(low, high, index=i + 1, bits=bits(term, own, sign)))
    sums = {sum(pick) for pick in product(*((part.low, part.high) for part in parts))}
    return Planes(tuple(parts), tuple(sorted(sums)))


MANY_PLANES = 3
_MANY_VALUES = 2**MANY_PLANES
_NOTHING = 2.0**-20  # relative


def subset_sums(values: Iterable[float]) -> tuple[float, tuple[float, ...]] | None:
    """(base, scales), the largest scale first, of which each value is base +- scale +- scale ...; None where
    that takes more than `MANY_PLANES` scales."""
    ordered = sorted(values, reverse=True)
    if len(ordered) < 2 or not np.isfinite(ordered).all():
        return None
    if len(ordered) == 3:  # one plane for each step; where these are equal, neither needs a correction
        steps = (ordered[0] - ordered[1]) / 2, (ordered[1] - ordered[2]) / 2
        return (ordered[0] + ordered[2]) / 2, (max(steps), min(steps))
    near = _NOTHING * (ordered[0] - ordered[-1])
    known = np.zeros(1)
    scales: list[float] = []
    for value in ordered:
        below = (ordered[0] - value) / 2
        if np.abs(known - below).min() > near:
            if len(scales) == MANY_PLANES:
                return None
            scales.append(below)
            known = np.concatenate([known, known + below])
    return ordered[0] - sum(scales), tuple(sorted(scales, reverse=True))


def codes_of(value: float, base: float, scales: Sequence[float]) -> tuple[int, ...]:
    """The signs, -1 or 1, with which the scales and the base add up to the value."""
    return min(
        product((-1, 1), repeat=len(scales)),
        key=lambda signs: abs(base + sum(s * c for s, c in zip(signs, scales, strict=True)) - value),
    )


_ARITHMETIC = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.negative"}


def _image(value: relax.Call, v: Any) -> np.ndarray:
    """Of an operator whose other operands are numbers, in float32."""
    others = [number(arg) for arg in value.args]
    return evaluate_operator(value, [np.float32(v if other is None else other) for other in others])


def _rises(value: relax.Call, of: TwoValued) -> bool:
    return bool(_image(value, of.high) > _image(value, of.low))


def _mapped(builder: relax.BlockBuilder, value: relax.Call, numbers: BoundValues) -> TwoValued | None:
    """The two values after an operator whose other operands are numbers."""
    moving = [i for i, arg in enumerate(value.args) if number(arg) is None]
    if len(moving) != 1 or shape_of(value.args[moving[0]]) != shape_of(value):
        return None
    inner = _two_values(builder, value.args[moving[0]], numbers)
    return _both(inner, lambda v: _image(value, v).item()) if inner else None


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
    if name in _ARITHMETIC:
        computed = [arg for arg in value.args if number(arg) is None]
        known = [of for arg in computed if (of := two_values(builder, arg, numbers)) is not None]
        if len(known) == 2 and name == "relax.multiply" and _multiplied(*known) is not None:
            highs = [truth(builder, arg, of, numbers) for arg, of in zip(computed, known, strict=True)]
            if values.low < 0 < values.high:
                return _opposite(builder, builder.emit(relax.op.logical_xor(*highs)))
            not_zero = [
                _opposite(builder, high) if of.high == 0.0 else high
                for high, of in zip(highs, known, strict=True)
            ]
            met = builder.emit(relax.op.logical_and(*not_zero))
            return _opposite(builder, met) if values.high == 0.0 else met
        if len(computed) == len(known) == 1 and shape_of(computed[0]) == shape_of(expr):
            higher = truth(builder, computed[0], known[0], numbers)
            return higher if _rises(value, known[0]) else _opposite(builder, higher)
    middle = relax.const((values.low + values.high) / 2, "float32")
    return builder.emit(relax.op.greater_equal(expr, middle))  # equal: moved from a `sign` of 0, which is +1


def _opposite(builder: relax.BlockBuilder, condition: relax.Expr) -> relax.Expr:
    return builder.emit(relax.op.logical_not(condition))
