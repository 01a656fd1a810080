"""Batch norm with constant statistics -> one multiplication and one addition per channel.

    y = (x - mean) / sqrt(var + eps) * gamma + beta = x * a + b
    a = 1 / sqrt(var + eps) * gamma,  b = beta - mean * a

in float32 and in this order, b rounded once: so PyTorch does it for inference (with a fused multiply-add),
and thresholds fall where it puts them.

Requires: nothing.
Ensures: no batch norm with constant statistics is left.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.rewrite import constant_value, is_call, is_constant, made_by, rewrite, shape_of


def fold_batch_norm(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if (
        is_call(value, "relax.nn.batch_norm")
        and not value.attrs.training
        and all(is_constant(arg) for arg in value.args[1:])
    ):
        x, *parameters = value.args
        gamma, beta, mean, variance = (constant_value(p).astype(np.float32) for p in parameters)
        scale = np.float32(1) / np.sqrt(variance + np.float32(value.attrs.epsilon))
        if value.attrs.scale:
            scale = scale * gamma
        shift = (beta if value.attrs.center else np.float32(0)) - mean.astype(np.float64) * scale
        per_channel = [1] * len(shape_of(x))
        per_channel[int(value.attrs.axis)] = len(scale)
        scaled = builder.emit(relax.op.multiply(x, relax.const(scale.reshape(per_channel))))
        shifted = builder.emit(
            relax.op.add(scaled, relax.const(shift.reshape(per_channel).astype(np.float32)))
        )
        return relax.Tuple([shifted, parameters[2], parameters[3]])
    if isinstance(value, relax.TupleGetItem):
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return made.fields[value.index]
    return value
