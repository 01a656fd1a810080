"""dequantize(quantize(x)) with one scale and zero point -> clip(round(x / scale), ends) * scale, in float.

Some exporters write a sign, or a rounding to two levels, between such a pair. As plain arithmetic it shows
how many values it has left, and where there are more than two it may still be fused.

Requires: nothing.
Ensures: no pair of `quantize` and `dequantize` with one scale is left.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.rewrite import dtype_of, is_call, made_by, number, rewrite


def expand_quantize(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "relax.dequantize"):
        return value
    inner = made_by(builder, value.args[0])
    if not is_call(inner, "relax.quantize") or {dtype_of(var), dtype_of(inner.args[0])} != {"float32"}:
        return value
    scale, zero = (number(arg) for arg in inner.args[1:])
    if not scale or zero is None or [number(arg) for arg in value.args[1:]] != [scale, zero]:
        return value
    limits = np.iinfo(dtype_of(value.args[0]))
    scaled = builder.emit(relax.op.divide(inner.args[0], relax.const(scale, "float32")))
    rounded = builder.emit(relax.op.round(scaled))
    ends = relax.op.clip(rounded, float(limits.min - zero), float(limits.max - zero))
    return relax.op.multiply(builder.emit(ends), relax.const(scale, "float32"))
