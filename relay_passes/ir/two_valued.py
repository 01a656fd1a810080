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
above 0, and exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.moves import WRITES, moved_from, replaces
from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    number,
    shape_of,
)
from relay_passes.ir.step_functions import Steps, Values, step_function
from relay_passes.ir.transfers.operands import fields
from relay_passes.ir.value_range import ValueRange, Zero
from schedules.parts.epilogue import OPERATORS, evaluate_operator

MANY_VALUES = 8
"""Of an activation, beyond which it is not worth knowing them."""


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


def two_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> TwoValued | None:
    """The two numbers that this activation takes, or None where that is not known."""
    found, steps = judged(builder, expr, numbers)
    if steps is not None:
        return TwoValued(steps.low, steps.high, steps.accident, steps.moved)
    if found is None and (few := few_values(builder, expr, numbers)) and len(few.found) == 2:
        return TwoValued(*few.found, moved=few.moved)
    return found


def judged(
    builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues
) -> tuple[TwoValued | None, Steps | None]:
    """The two values by how it is made; by what it computes, where that says more."""
    found = _by_its_making(builder, expr, numbers)
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


def _by_its_making(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> TwoValued | None:
    value = made_by(builder, expr)
    if (source := moved_from(builder, value)) is not None:
        return two_values(builder, source, numbers)
    if is_constant(value):
        return _union(np.unique(constant_value(value)).tolist()) if "float" in dtype_of(expr) else None
    if not is_call(value):
        return None
    name = value.op.name
    if name in ("relax.concat", "relax.stack"):
        return _union(values_of(builder, part, numbers) for part in fields(builder, value.args[0]))
    if (written := WRITES.get(name)) is not None and replaces(value):
        return _union(values_of(builder, value.args[i], numbers) for i in (0, written))
    if name == "relax.nn.pad":
        inner = two_values(builder, value.args[0], numbers)
        return inner if inner and float(value.attrs.pad_value) in (inner.low, inner.high) else None
    if name == "relax.where":
        yes, no = number(value.args[1]), number(value.args[2])
        if yes is not None and no is not None:
            return TwoValued(min(yes, no), max(yes, no)) if yes != no else None
        return _union(values_of(builder, arg, numbers) for arg in value.args[1:])
    if name == "relax.sign":
        return values_of_sign(numbers.of(builder, value.args[0]))
    if name == "relax.astype":
        if dtype_of(value.args[0]) == "bool":
            return TwoValued(0.0, 1.0)
        inner_values = _by_its_making(builder, value.args[0], numbers)
        own = dtype_of(value.args[0])
        return inner_values and _both(inner_values, lambda v: v.astype(own).astype(dtype_of(expr)))
    if name in ("relax.argmax", "relax.argmin") and _extent_of(value) == 2:
        return TwoValued(0.0, 1.0)
    if name == "relax.round":
        reached = numbers.of(builder, value.args[0])
        low, high = np.rint([reached.low.min(), reached.high.max()])
        if high - low == 1:
            return TwoValued(float(low), float(high))
    if name == "relax.multiply" and not any(is_constant(arg) for arg in value.args):
        return multiplied(*(two_values(builder, arg, numbers) for arg in value.args))
    return _mapped(builder, value, numbers) if name in OPERATORS else None


def _extent_of(value: relax.Call) -> int:
    """How many elements one of the places that an argmax finds may be of."""
    shape, axis = shape_of(value.args[0]), value.attrs.axis
    return int(np.prod(shape)) if axis is None else shape[int(axis)]


def values_of(
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


def multiplied(a: TwoValued | None, b: TwoValued | None) -> TwoValued | None:
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


def values_of_sign(x: ValueRange) -> TwoValued | None:
    """The values of `sign` over these numbers."""
    if x.not_negative:
        return TwoValued(0.0, 1.0)
    if x.not_positive:
        return TwoValued(-1.0, 0.0)
    return None if x.zero is Zero.COMMON else TwoValued(-1.0, 1.0, x.zero is Zero.ACCIDENTAL)


def image(value: relax.Call, v: Any) -> np.ndarray:
    """Of an operator whose other operands are numbers, in their own type: 2 * 0 - 1 of a byte is 255."""
    operands = []
    for arg in value.args:
        own, dtype = number(arg), dtype_of(arg) if is_tensor(arg) else "float32"
        operands.append(np.asarray(v if own is None else own).astype(dtype))
    with np.errstate(over="ignore"):
        return evaluate_operator(value, operands)


def _mapped(builder: relax.BlockBuilder, value: relax.Call, numbers: BoundValues) -> TwoValued | None:
    """The two values after an operator whose other operands are numbers."""
    moving = [i for i, arg in enumerate(value.args) if number(arg) is None]
    if len(moving) != 1 or shape_of(value.args[moving[0]]) != shape_of(value):
        return None
    inner = _by_its_making(builder, value.args[moving[0]], numbers)
    return _both(inner, lambda v: image(value, v).item()) if inner else None


def _both(values: TwoValued, image: Callable[[np.float32], float]) -> TwoValued | None:
    """What the two values become, in float32 as the network computes it; None where they become one."""
    low, high = sorted(float(np.float32(image(np.float32(v)))) for v in (values.low, values.high))
    return replace(values, low=low, high=high) if np.isfinite([low, high]).all() and low < high else None


def few_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Values | None:
    """All that an activation takes, in order, but for accidents of floats; None where that is not known, or
    more than so many planes of bits add up to."""
    if expr not in numbers.few:
        numbers.few[expr] = _few_values(builder, expr, numbers)
    return numbers.few[expr]


def _few_values(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Values | None:
    if (one := number(expr)) is not None:
        return Values((one,))
    found, steps = judged(builder, expr, numbers)
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
    elif name in WRITES and replaces(value):
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
    if len(found) > MANY_VALUES or not np.isfinite(found).all():
        return None
    return Values(tuple(found), moved=max(moves, default=None))
