"""TVM's own bit-serial convolution, as it ships: a compute definition, compiled without a schedule.

It computes the sum of (x >= 0) * w: topi has {0, 1} activations with +-1 weights, but not +-1 with +-1.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, te, tirx, topi

from schedules.geometry import Convolution

_NAME = "bitserial_convolution"
_WORD = 32


def unsupported(conv: Convolution) -> str | None:
    """Why TVM has no such kernel for this layer, in words; None where it has one."""
    if conv.groups != 1:
        return "it has no groups"
    if conv.dilation != (1, 1):
        return "it has no dilation"
    return None


def bitserial_function(conv: Convolution) -> tirx.PrimFunc:
    """A function of x float32 [N, H, W, C], w uint8 [KH, KW, C, O], 0 and 1 for -1 and +1, and y float32.

    The weights are packed in every call: the form for packed weights takes their extents in another order
    than its loops. Words have 32 bits, and channels are filled up to that with bits that count nothing: in
    narrower words the differences that TVM 0.27 takes of counts wrap around. Sums are int32: with int16, the
    default, the code that it makes is wrong for some shapes.
    """
    shape = (conv.batch, conv.height, conv.width, conv.channels)
    x = te.placeholder(shape, "float32", "x")
    kernel = te.placeholder((*conv.kernel, conv.channels, conv.out_channels), "uint8", "kernel")
    one, zero = (tirx.const(value, "uint8") for value in (1, 0))
    filled = -(-conv.channels // _WORD) * _WORD

    def bit(n: Any, h: Any, w: Any, c: Any) -> Any:
        counts = x[n, h, w, c] >= 0
        return tirx.if_then_else(c < conv.channels, tirx.Select(counts, one, zero), zero)

    def weight(h: Any, w: Any, c: Any, o: Any) -> Any:
        return tirx.if_then_else(c < conv.channels, kernel[h, w, c, o], zero)

    bits = te.compute((*shape[:3], filled), bit)
    weights = kernel
    if filled != conv.channels:
        weights = te.compute((*conv.kernel, filled, conv.out_channels), weight)
    geometry = (list(conv.strides), list(conv.padding))
    sums = topi.nn.bitserial_conv2d_nhwc(bits, weights, *geometry, 1, 1, f"uint{_WORD}", "int32", True)
    function = te.create_prim_func([x, kernel, topi.cast(sums, "float32")])
    return function.with_attr("global_symbol", _NAME)


def bitserial_module(conv: Convolution) -> tvm.IRModule:
    """`main(x, w)` for the Relax virtual machine: the one kernel."""
    builder = relax.BlockBuilder()
    x_type = relax.TensorType((conv.batch, conv.height, conv.width, conv.channels), "float32")
    w_type = relax.TensorType((*conv.kernel, conv.channels, conv.out_channels), "uint8")
    x, w = relax.Var("x", x_type), relax.Var("w", w_type)
    with builder.function("main", [x, w]):
        with builder.dataflow():
            kernel = builder.add_func(bitserial_function(conv), _NAME)
            y_type = relax.TensorType(conv.out_shape, "float32")
            y = builder.emit_output(relax.call_tir(kernel, [x, w], y_type))
        builder.emit_func_output(y)
    return builder.get()
