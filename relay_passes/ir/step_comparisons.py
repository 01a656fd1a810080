"""The bits of an expression that takes two values: comparisons of the tensor that it is made of."""

from __future__ import annotations

from functools import reduce

import numpy as np
from tvm import relax

from relay_passes.ir.ordinals import INFINITE, to_floats
from relay_passes.ir.rewrite import dtype_of, shape_of
from relay_passes.ir.step_functions import Steps


def emit_truth(builder: relax.BlockBuilder, steps: Steps) -> relax.Expr:
    """A bool tensor: where the expression has the higher of its two values. NaN gives what the source gives;
    where that is NaN, or not the same in all channels, the lower one."""
    if dtype_of(steps.x) == "bool":
        return builder.emit(relax.op.logical_not(steps.x)) if steps.outside else steps.x
    x, shape = steps.x, steps.shape

    def constant(values: np.ndarray) -> relax.Expr:
        values = values + np.float32(0)  # no -0.0
        return relax.const(values[0] if (values == values[0]).all() else values.reshape(shape))

    def subnormal(values: np.ndarray) -> bool:
        return bool(((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any())

    def above(first: np.ndarray) -> relax.Expr:
        at, before = to_floats(first), to_floats(first - 1)
        if subnormal(at) and not subnormal(before):
            return builder.emit(relax.op.greater(x, constant(before)))
        return builder.emit(relax.op.greater_equal(x, constant(at)))

    def below(last: np.ndarray) -> relax.Expr:
        at, behind = to_floats(last), to_floats(last + 1)
        if subnormal(at) and not subnormal(behind):
            return builder.emit(relax.op.less(x, constant(behind)))
        return builder.emit(relax.op.less_equal(x, constant(at)))

    total: relax.Expr | None = None
    for first, last in steps.intervals:
        bounds = []
        open_below, open_above = first == -INFINITE - 1, last == INFINITE
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
