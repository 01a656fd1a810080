"""Layer norm along the last axis gets our operator, with its scales as element-wise work that joins it.

Requires: that what is binary was found.
Ensures: the same values but for rounding.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.operators import call
from relay_passes.ir.rewrite import dtype_of, is_call, rewrite, shape_of
from schedules.kernels.normalization import Normalization


def mark_norms(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "relax.nn.layer_norm") or dtype_of(value.args[0]) != "float32":
        return value
    x, scale, offset = value.args
    shape, attrs = shape_of(x), value.attrs
    if len(shape) > 4 or 0 in shape or [int(axis) % len(shape) for axis in attrs.axes] != [len(shape) - 1]:
        return value
    norm = Normalization(shape, float(attrs.epsilon))
    result: relax.Expr = call("bibench.normalize", x, attributes=norm)
    if attrs.scale:
        result = relax.op.multiply(builder.emit(result), scale)
    if attrs.center:
        result = relax.op.add(builder.emit(result), offset)
    return result
