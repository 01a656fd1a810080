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
from schedules.geometry import Convolution
from schedules.kernels.pooling import Pooling

FEWEST_CHANNELS = 4


def mark_pools(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "relax.nn.max_pool2d", "relax.nn.avg_pool2d") or value.attrs.layout != "NHWC":
        return value
    batch, height, width, channels = shape_of(value.args[0])
    _, out_height, out_width, _ = shape_of(var)
    kernel, strides, dilation, given = (
        tuple(int(v) for v in getattr(value.attrs, name))
        for name in ("pool_size", "strides", "dilation", "padding")
    )
    top, left = given[:2]
    # What the windows span says where the image ends; ceil_mode adds to it, and floor leaves some of it out.
    bottom = max(0, (out_height - 1) * strides[0] + dilation[0] * (kernel[0] - 1) + 1 - height - top)
    right = max(0, (out_width - 1) * strides[1] + dilation[1] * (kernel[1] - 1) + 1 - width - left)
    average = value.op.name == "relax.nn.avg_pool2d"
    widened = bottom > given[2] or right > given[3]
    if channels < FEWEST_CHANNELS or (average and widened):
        return value
    window = Convolution(
        batch,
        height,
        width,
        channels,
        channels,
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        padding=(top, left, bottom, right),
        dilation=(dilation[0], dilation[1]),
        groups=channels,
    )
    pool = Pooling(
        window,
        dtype_of(value.args[0]),
        average=average,
        count_padding=bool(value.attrs.count_include_pad),
    )
    return call("bibench.pool", value.args[0], attributes=pool)
