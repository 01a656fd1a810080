"""Pools that are channels last by now get our operator, so that their epilogue and packing join them.

Left to TVM are those with few channels, which do not fill a vector (the K of XNOR-Net has one), and averages
whose last window was widened by `ceil_mode`, for which the frameworks divide by different counts.

Requires: channels last.
Ensures: pools of 4 channels and more are `bibench.pool`.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.operators import call
from relay_passes.ir.rewrite import dtype_of, is_call, rewrite, shape_of
from relay_passes.ir.windows import window_of
from schedules.kernels.pooling import Pooling

FEWEST_CHANNELS = 4


def mark_pools(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "relax.nn.max_pool2d", "relax.nn.avg_pool2d") or value.attrs.layout != "NHWC":
        return value
    window = window_of(value, shape_of(var))
    given = [int(n) for n in value.attrs.padding]
    average = value.op.name == "relax.nn.avg_pool2d"
    widened = window.padding[2] > given[2] or window.padding[3] > given[3]
    if window.channels < FEWEST_CHANNELS or (average and widened):
        return value
    pool = Pooling(
        window,
        dtype_of(value.args[0]),
        average=average,
        count_padding=bool(value.attrs.count_include_pad),
    )
    return call("bibench.pool", value.args[0], attributes=pool)
