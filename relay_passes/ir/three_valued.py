"""Signs that are 0 as a matter of course: -a, 0 and a, in two planes of bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.moves import moved_from
from relay_passes.ir.rewrite import dtype_of, is_call, made_by, number
from relay_passes.ir.step_functions import Values
from relay_passes.ir.two_valued import steps_of, values_of_sign
from schedules.parts.epilogue import evaluate_operator


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
        cause = None if values_of_sign(before) else before.zero_cause()
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
