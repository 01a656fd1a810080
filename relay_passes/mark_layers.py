"""Give every convolution and matrix product its name, and turn it to channels last.

    conv2d(x: NCHW, w: OIHW)  ->  permute(bibench.convolution(permute(x), w'), back)    with w': O, KH, KW, I
    conv1d(x: NCW, w: OIW)    ->  the same with a height of 1
    matmul(x, w: [K, N])      ->  bibench.matmul(x, w') where w is a constant            with w': N, K
    matmul(x, y)              ->  bibench.product(x, y) where both are activations

The permutations stand around every layer here; `sink_transposes` lets them meet and vanish. Transposed and
3-D convolutions, and those whose weights are computed at run time, have no operator of ours: they keep
theirs, and `bibench.named` only says how they are called.

Requires: a module as imported: one `main`, one dataflow block, static shapes, parameters as constants.
Ensures: every layer is an operator of ours or stands before a `bibench.named`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.fold_pads import without_pad
from relay_passes.ir.operators import Contraction, Named, call, dense
from relay_passes.ir.rewrite import constant_value, is_call, is_constant, rewrite, shape_of
from schedules.geometry import Convolution

CONVOLUTIONS = (
    "relax.nn.conv1d",
    "relax.nn.conv2d",
    "relax.nn.conv3d",
    "relax.nn.conv1d_transpose",
    "relax.nn.conv2d_transpose",
    "relax.nn.conv3d_transpose",
)


def mark_layers(mod: tvm.IRModule, names: Mapping[str, str]) -> tvm.IRModule:
    """names: name_hint of the imported variable -> the name that a user knows."""

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        return _mark(builder, value, names.get(var.name, str(var.name)))

    return rewrite(mod, visit)


def _mark(builder: relax.BlockBuilder, value: relax.Expr, name: str) -> relax.Expr:
    if is_call(value, *CONVOLUTIONS) and not is_constant(value.args[1]):
        return call("bibench.named", builder.emit(value), attributes=Named(name=name))
    if is_call(value, "relax.nn.conv2d") and (value.attrs.data_layout, value.attrs.kernel_layout) == (
        "NCHW",
        "OIHW",
    ):
        return _conv2d(builder, value, name)
    if is_call(value, "relax.nn.conv1d") and (value.attrs.data_layout, value.attrs.kernel_layout) == (
        "NCW",
        "OIW",
    ):
        return _conv1d(builder, value, name)
    if is_call(value, "relax.matmul"):
        x, w = value.args
        if is_constant(w) and len(shape_of(w)) == 2 and 1 <= len(shape_of(x)) <= 4:
            turned = relax.const(np.ascontiguousarray(constant_value(w).T))
            shape = shape_of(x)
            layer = Contraction(name=name, op="linear", conv=dense(shape, shape_of(w)[1]), rank=len(shape))
            return call("bibench.matmul", x, turned, attributes=layer)
        if len(shape_of(x)) >= 2 and len(shape_of(w)) >= 2:
            return call("bibench.product", x, w, attributes=Named(name=name))
    if is_call(value, *CONVOLUTIONS):
        return call("bibench.named", builder.emit(value), attributes=Named(name=name))
    return value


def _channels_last(weights: relax.Expr, order: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(constant_value(weights).transpose(order))


def _conv2d(builder: relax.BlockBuilder, conv: relax.Call, name: str) -> relax.Expr:
    x, padding = without_pad(builder, conv.args[0], [int(p) for p in conv.attrs.padding])
    w = conv.args[1]
    batch, channels, height, width = shape_of(x)
    top, left, bottom, right = padding
    geometry = Convolution(
        batch,
        height,
        width,
        channels,
        shape_of(w)[0],
        kernel=(shape_of(w)[2], shape_of(w)[3]),
        strides=(int(conv.attrs.strides[0]), int(conv.attrs.strides[1])),
        padding=(top, left, bottom, right),
        dilation=(int(conv.attrs.dilation[0]), int(conv.attrs.dilation[1])),
        groups=int(conv.attrs.groups),
    )
    marked = call(
        "bibench.convolution",
        builder.emit(relax.op.permute_dims(x, [0, 2, 3, 1])),
        relax.const(_channels_last(w, (0, 2, 3, 1))),
        attributes=Contraction(name=name, op="conv2d", conv=geometry),
    )
    return relax.op.permute_dims(builder.emit(marked), [0, 3, 1, 2])


def _conv1d(builder: relax.BlockBuilder, conv: relax.Call, name: str) -> relax.Expr:
    x, (left, right) = without_pad(builder, conv.args[0], [int(p) for p in conv.attrs.padding])
    w = conv.args[1]
    n, channels, length = shape_of(x)
    out, _, kernel = shape_of(w)
    geometry = Convolution(
        n,
        1,
        length,
        channels,
        out,
        kernel=(1, kernel),
        strides=(1, int(conv.attrs.strides[0])),
        padding=(0, left, 0, right),
        dilation=(1, int(conv.attrs.dilation[0])),
        groups=int(conv.attrs.groups),
    )
    rows = builder.emit(relax.op.permute_dims(x, [0, 2, 1]))
    marked = call(
        "bibench.convolution",
        builder.emit(relax.op.reshape(rows, (n, 1, length, channels))),
        relax.const(_channels_last(w, (0, 2, 1))[:, None]),
        attributes=Contraction(name=name, op="conv1d", conv=geometry),
    )
    image = builder.emit(marked)
    flat = builder.emit(relax.op.reshape(image, (n, shape_of(image)[2], out)))
    return relax.op.permute_dims(flat, [0, 2, 1])
