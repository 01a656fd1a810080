"""Give every convolution and matrix product its name, and turn it to channels last.

    conv2d(x: NCHW, w: OIHW)  ->  permute(bibench.convolution(permute(x), w'), back)    with w': O, KH, KW, I
    conv1d(x: NCW, w: OIW)    ->  the same on [N, W, C], an image whose rows are the batch
    matmul(x, w: [K, N])      ->  bibench.matmul(x, w') where w is a constant            with w': N, K
    matmul(w: [M, K], x)      ->  permute(bibench.matmul(permute(x), w), back), likewise
    matmul(x, y)              ->  bibench.product(x, y) where both are activations
    matmul(x, y: [K, 1])      ->  the permuted product of the permuted y and x, likewise

The permutations stand around every layer here; `sink_transposes` lets them meet and vanish. Transposed
convolutions are turned so where their weights are +-alpha, or sums of such, and may be computed in bits.
Others, 3-D ones, and those whose weights are computed at run time, and products with a vector or of
integers, have no operator of ours: they keep theirs, and `bibench.named` only says how they are called.

Requires: a module as imported: one `main`, one dataflow block, static shapes, parameters as constants.
Ensures: every layer is an operator of ours or stands before a `bibench.named`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.fold_pads import without_pad
from relay_passes.ir.layers import CONVOLUTIONS
from relay_passes.ir.operators import Contraction, Named, Product, Transposed, call, dense
from relay_passes.ir.rewrite import constant_value, dtype_of, is_call, is_constant, rewrite, shape_of
from relay_passes.ir.weight_planes import weight_planes
from relay_passes.ir.weights import binary_weights
from schedules.geometry import Convolution


def mark_layers(mod: tvm.IRModule, names: Mapping[str, str]) -> tvm.IRModule:
    """names: name_hint of the imported variable -> the name that a user knows."""

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        return _mark(builder, var, value, names.get(var.name, str(var.name)))

    return rewrite(mod, visit)


def _mark(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr, name: str) -> relax.Expr:
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
    if is_call(value, "relax.matmul") and dtype_of(value.args[0]) == "float32":
        return _product(builder, value, name, shape_of(var))
    if is_call(value, "relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose"):
        weights = out_channels_first(value)
        in_bits = not isinstance(binary_weights(weights), str) or weight_planes(weights) is not None
        if in_bits and not why_not_in_parts(value):
            return _transposed(builder, value, weights, name)
    if is_call(value, *CONVOLUTIONS, "relax.matmul"):
        return call("bibench.named", builder.emit(value), attributes=Named(name=name))
    return value


def _product(builder: relax.BlockBuilder, value: relax.Call, name: str, shape: tuple[int, ...]) -> relax.Expr:
    """A matrix product: a linear layer where either side is one constant matrix. shape: of the result."""
    op, (x, y) = relax.op, value.args
    made: relax.Expr
    if (matrix := _matrix(y)) is not None and len(shape_of(x)) <= 4:
        made = _linear(x, matrix.T, name)
        alike = len(shape) == len(shape_of(x))
    elif min(len(shape_of(x)), len(shape_of(y))) < 2:
        return call("bibench.named", builder.emit(value), attributes=Named(name=name))
    elif (matrix := _matrix(x)) is not None and len(shape_of(y)) <= 4:
        columns = builder.emit(op.permute_dims(y, _turned(shape_of(y))))
        made = op.permute_dims(builder.emit(_linear(columns, matrix, name)), _turned(shape_of(y)))
        alike = len(shape) == len(shape_of(y))
    elif shape[-1] == 1 < shape[-2]:
        # Vectors go along the last axis, which then has more than one column.
        row, columns = (builder.emit(op.permute_dims(each, _turned(shape_of(each)))) for each in (y, x))
        row = builder.emit(call("bibench.product", row, columns, attributes=Product(name=name, turned=True)))
        return op.permute_dims(row, _turned(shape))
    else:
        return call("bibench.product", x, y, attributes=Product(name=name))
    return made if alike else op.reshape(builder.emit(made), shape)


def _turned(shape: tuple[int, ...]) -> list[int]:
    """The axes of matrices, rows and columns exchanged."""
    rank = len(shape)
    return [*range(rank - 2), rank - 1, rank - 2]


def _matrix(w: relax.Expr) -> np.ndarray | None:
    """A constant of two dimensions, but for those of 1 before them."""
    if not is_constant(w) or len(shape_of(w)) < 2 or set(shape_of(w)[:-2]) - {1}:
        return None
    return constant_value(w).reshape(shape_of(w)[-2:])


def _linear(x: relax.Expr, weights: np.ndarray, name: str) -> relax.Call:
    """weights: [N, K]."""
    shape = shape_of(x)
    layer = Contraction(name=name, op="linear", conv=dense(shape, len(weights)), rank=len(shape))
    return call("bibench.matmul", x, relax.const(np.ascontiguousarray(weights)), attributes=layer)


def out_channels_first(conv: relax.Call) -> np.ndarray:
    """The weights of a transposed convolution, [I, O / groups, ...], as [O, I / groups, ...]."""
    weights, groups = constant_value(conv.args[1]), int(conv.attrs.groups)
    inputs, outputs, *kernel = weights.shape
    apart = weights.reshape(groups, inputs // groups, outputs, *kernel)
    return apart.swapaxes(1, 2).reshape(groups * outputs, inputs // groups, *kernel)


def why_not_in_parts(conv: relax.Call) -> str:
    """Why a transposed convolution is not computed as ordinary ones; nothing where it may be."""
    kind = conv.op.name.removeprefix("relax.nn.")
    if int(conv.attrs.groups) != 1:
        return f"{kind} with groups has no binary kernel"
    if any(int(d) != 1 for d in conv.attrs.dilation):
        return f"{kind} with a dilation has no binary kernel"
    layouts = str(conv.attrs.data_layout), str(conv.attrs.kernel_layout)
    if layouts not in (("NCHW", "IOHW"), ("NCW", "IOW")):
        return f"{kind} with the layouts {layouts[0]} and {layouts[1]} has no binary kernel"
    return ""


def _transposed(builder: relax.BlockBuilder, conv: relax.Call, weights: np.ndarray, name: str) -> relax.Expr:
    x = conv.args[0]
    shape = shape_of(x)
    flat = len(shape) == 3
    strides, padding, more = (
        [int(number) for number in numbers]
        for numbers in (conv.attrs.strides, conv.attrs.padding, conv.attrs.output_padding)
    )
    if flat:
        strides, padding, more = [1, *strides], [0, padding[0], 0, padding[1]], [0, *more]
    top, left, bottom, right = padding
    batch, channels, height, width = (*shape[:2], *((1, *shape[2:])[-2:]))
    turned = builder.emit(relax.op.permute_dims(x, [0, 2, 1] if flat else [0, 2, 3, 1]))
    if flat:
        turned = builder.emit(relax.op.reshape(turned, (batch, 1, width, channels)))
    taps = weights[:, :, None] if flat else weights
    layer = Transposed(
        name=name,
        op=conv.op.name.removeprefix("relax.nn."),
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        out_channels=len(weights),
        kernel=taps.shape[2:],
        strides=(strides[0], strides[1]),
        padding=(top, left, bottom - more[0], right - more[1]),
    )
    last = relax.const(np.ascontiguousarray(taps.transpose(0, 2, 3, 1)))
    image = builder.emit(call("bibench.transposed_convolution", turned, last, attributes=layer))
    if not flat:
        return relax.op.permute_dims(image, [0, 3, 1, 2])
    rows = builder.emit(relax.op.reshape(image, (batch, layer.out_shape[2], len(weights))))
    return relax.op.permute_dims(rows, [0, 2, 1])


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
        1,
        n,
        length,
        channels,
        out,
        kernel=(1, kernel),
        strides=(1, int(conv.attrs.strides[0])),
        padding=(0, left, 0, right),
        dilation=(1, int(conv.attrs.dilation[0])),
        groups=int(conv.attrs.groups),
    )
    marked = call(
        "bibench.convolution",
        builder.emit(relax.op.permute_dims(x, [0, 2, 1])),
        relax.const(_channels_last(w, (0, 2, 1))[:, None]),
        attributes=Contraction(name=name, op="conv1d", conv=geometry, rank=3),
    )
    return relax.op.permute_dims(builder.emit(marked), [0, 2, 1])
