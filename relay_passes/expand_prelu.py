"""prelu(x, slope) -> where(x > 0, x, x * slope), which is element by element and so can be fused.

Requires: nothing.
Ensures: no `prelu` with a constant slope is left.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.rewrite import constant_value, is_call, is_constant, rewrite, shape_of


def expand_prelu(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not (is_call(value, "relax.nn.prelu") and is_constant(value.args[1])):
        return value
    x, slope = value.args
    per_channel = [1] * len(shape_of(x))
    per_channel[int(value.attrs.axis)] = -1
    scaled = builder.emit(relax.op.multiply(x, relax.const(constant_value(slope).reshape(per_channel))))
    return relax.op.where(builder.emit(relax.op.greater(x, relax.const(0.0))), x, scaled)
