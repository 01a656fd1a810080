"""Layer norm and softmax along the last axis get our operators; the scales of a norm are element-wise work
that joins it.

Requires: that what is binary was found.
Ensures: the same values but for rounding.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.operators import call
from relay_passes.ir.rewrite import dtype_of, is_call, rewrite, shape_of
from schedules.kernels.normalization import Normalization
from schedules.kernels.softmax import Softmax


def mark_rows(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "relax.nn.layer_norm", "relax.nn.softmax") or dtype_of(value.args[0]) != "float32":
        return value
    shape, attrs = shape_of(value.args[0]), value.attrs
    softmax = is_call(value, "relax.nn.softmax")
    axes = [attrs.axis] if softmax else attrs.axes
    if len(shape) > 4 or 0 in shape or [int(axis) % len(shape) for axis in axes] != [len(shape) - 1]:
        return value
    if softmax:
        return call("bibench.softmax", value.args[0], attributes=Softmax(shape))
    x, scale, offset = value.args
    result: relax.Expr = call("bibench.normalize", x, attributes=Normalization(shape, float(attrs.epsilon)))
    if attrs.scale:
        result = relax.op.multiply(builder.emit(result), scale)
    if attrs.center:
        result = relax.op.add(builder.emit(result), offset)
    return result
