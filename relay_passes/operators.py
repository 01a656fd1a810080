"""The operators that stand between what is imported and what is a kernel.

All are channels last. Images are [N, H, W, C]; weights are [O, KH, KW, C / groups]. A tensor of lower rank is
read as an image with leading extents of 1.

    bibench.convolution(x, w)             float32 -> float32
    bibench.matmul(x, w)                  float32 [.., M, K], [N, K] constant -> float32
    bibench.product(x, y)                 float32, two activations
    bibench.named(y)                      y, which a layer without an operator of ours computed
    bibench.pool(x)                       the maximum or average of windows
    bibench.pack(x)                       bool, or float32 with a scale -> words (see schedules/bits.py); with
                                          `planar`, of [N, C, H, W] or [N, C, L], as if it had been turned
    bibench.binary_convolution(words, w)  words, int8 +-1 -> int32 dot products
    bibench.int8_convolution(words, w)    words of bytes, int8 -> int32 dot products
    bibench.binary_product(words, words)  [.., M, K], [.., N, K] -> int32 [.., M, N]
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from schedules.bits import Packing
from schedules.geometry import Convolution
from schedules.pooling import Pooling
from schedules.quantizer import Quantizer


def call(operator: str, /, *args: relax.Expr, **attributes: Any) -> relax.Call:
    return relax.Call(tvm.ir.Op.get(operator), list(args), tvm.ir.make_node("ir.DictAttrs", **attributes))


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def image(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A shape of rank 1 to 4 as that of an image."""
    n, h, w, c = (1,) * (4 - len(shape)) + tuple(shape)
    return n, h, w, c


def packed_image(pack: relax.Call) -> tuple[int, int, int, int]:
    """The image that is packed, channels last."""
    shape = _ints(pack.args[0].ty.shape)
    if not int(pack.attrs["planar"]):
        return image(shape)
    n, c, h, w = (*shape[:2], *((1, *shape[2:])[-2:]))
    return n, h, w, c


def packing_of(attrs: Any) -> Packing:
    top, left, bottom, right = _ints(attrs["halo"])
    quantizer = Quantizer(float(attrs["scale"]), int(attrs["zero_point"])) if "scale" in attrs else None
    return Packing(
        int(attrs["channels"]),
        int(attrs["word"]),
        int(attrs["groups"]),
        (top, left, bottom, right),
        quantizer,
    )


def convolution_of(attrs: Any, in_shape: tuple[int, ...], out_channels: int) -> Convolution:
    """in_shape: of the image that is read, before packing."""
    n, h, w, c = image(in_shape)
    kernel, strides, padding = _ints(attrs["kernel"]), _ints(attrs["strides"]), _ints(attrs["padding"])
    dilation = _ints(attrs["dilation"])
    geometry: Any = (kernel, strides, padding, dilation, int(attrs["groups"]))
    return Convolution(n, h, w, c, out_channels, *geometry)


def _convolution_type(c: relax.Call, _: Any) -> relax.TensorType:
    x, w = c.args
    conv = convolution_of(c.attrs, _ints(x.ty.shape), int(w.ty.shape[0]))
    return relax.TensorType(conv.out_shape, "float32")


def _matmul_type(c: relax.Call, _: Any) -> relax.TensorType:
    x, w = c.args
    return relax.TensorType((*_ints(x.ty.shape)[:-1], int(w.ty.shape[0])), "float32")


def _product_type(c: relax.Call, _: Any) -> relax.TensorType:
    return relax.BlockBuilder().normalize(relax.op.matmul(*c.args)).ty


def _named_type(c: relax.Call, _: Any) -> relax.TensorType:
    return c.args[0].ty


def pooling_of(attrs: Any, in_shape: tuple[int, ...], dtype: str) -> Pooling:
    channels = in_shape[-1]
    window = convolution_of({**dict(attrs.items()), "groups": channels}, in_shape, channels)
    return Pooling(window, dtype, bool(int(attrs["average"])), bool(int(attrs["count_padding"])))


def _pool_type(c: relax.Call, _: Any) -> relax.TensorType:
    (x,) = c.args
    pool = pooling_of(c.attrs, _ints(x.ty.shape), str(x.ty.dtype))
    return relax.TensorType(pool.window.out_shape, pool.dtype)


def _pack_type(c: relax.Call, _: Any) -> relax.TensorType:
    packing = packing_of(c.attrs)
    return relax.TensorType(packing.shape(*packed_image(c)[:3]), packing.dtype)


def _declared_type(c: relax.Call, _: Any) -> relax.TensorType:
    return relax.TensorType(_ints(c.attrs["out_shape"]), "int32")


for _name, _infer in {
    "bibench.convolution": _convolution_type,
    "bibench.matmul": _matmul_type,
    "bibench.product": _product_type,
    "bibench.named": _named_type,
    "bibench.pool": _pool_type,
    "bibench.pack": _pack_type,
    "bibench.binary_convolution": _declared_type,
    "bibench.int8_convolution": _declared_type,
    "bibench.binary_product": _declared_type,
}.items():
    tvm.ir.register_op_attr(_name, "FInferType", _infer)
    tvm.ir.register_op_attr(_name, "FPurity", True)
