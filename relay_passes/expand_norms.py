"""Instance norm and group norm -> averages of channels, and element-wise work that joins other kernels.

With the mean m of a group, and v that of (x - m)^2, they are (x - m) * (scale / sqrt(v + epsilon)) + offset.
A sum over an image and the channels of a group is that of the sums over the image; what belongs to a channel
is small.

Requires: nothing.
Ensures: the same values but for rounding. Of float32 no `instance_norm` or `group_norm` is left over all axes
but the channels' and the batch's, and no `instance_norm` over the batch, too.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.rewrite import dtype_of, is_call, rewrite, shape_of


def expand_norms(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "relax.nn.instance_norm", "relax.nn.group_norm"):
        return value
    x, scale, offset = value.args
    shape, attrs, emit, op = shape_of(x), value.attrs, builder.emit, relax.op
    rank, channel = len(shape), int(attrs.channel_axis) % len(shape)
    axes, channels = sorted(int(axis) % rank for axis in attrs.axes), shape[channel]
    groups = int(attrs.num_groups) if is_call(value, "relax.nn.group_norm") else channels
    whole = [i for i in range(rank) if i not in (0, channel)]  # without the batch
    allowed = [whole, [0, *whole]] if groups == channels else [whole]
    if axes not in allowed or not channel or 0 in shape or dtype_of(x) != "float32":
        return value
    along = tuple(channels if i == channel else 1 for i in range(rank))  # of what belongs to a channel

    def mean(of: relax.Expr) -> relax.Expr:
        """[N, C, 1, ..], of the channel's group; with 1 for N over the batch. Divided once: where the sum is
        exact, as of integers, the mean is the nearest number to it, and what equals it is 0 away."""
        if groups == channels:
            return emit(op.mean(of, axes, keepdims=True))
        totals = emit(op.reshape(emit(op.sum(of, axes, keepdims=True)), (shape[0], groups, -1)))
        count = relax.const(np.float32(np.prod(shape) // (shape[0] * groups)))
        grouped = emit(op.divide(emit(op.sum(totals, [2], keepdims=True)), count))
        spread = emit(op.broadcast_to(grouped, (shape[0], groups, channels // groups)))
        return emit(op.reshape(spread, (shape[0], *along[1:])))

    far = emit(op.subtract(x, mean(x)))
    deviation = emit(
        op.sqrt(emit(op.add(mean(emit(op.multiply(far, far))), relax.const(np.float32(attrs.epsilon)))))
    )
    factor = relax.const(np.ones(along, np.float32))
    if attrs.scale:
        factor = emit(op.reshape(scale, along))
    result = op.multiply(far, emit(op.divide(factor, deviation)))
    return op.add(emit(result), emit(op.reshape(offset, along))) if attrs.center else result
