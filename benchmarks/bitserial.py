"""TVM's own bit-serial convolution, as it ships: a compute definition, compiled without a schedule."""

from __future__ import annotations

from typing import Any


def bitserial_convolution(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int, padding: int
) -> Any:
    """A function of x float32 [N, H, W, C], w uint8 [KH, KW, C, O], 0 and 1 for -1 and +1, and y float32.

    It computes the sum of (x >= 0) * w: topi has {0, 1} activations with +-1 weights, but not +-1 with +-1.
    The weights are packed in every call, a small part of its time: the form for packed weights takes their
    extents in another order than its loops. Sums are int32: with int16, the default, the code that TVM 0.27
    makes is wrong for some shapes.
    """
    import tvm
    from tvm import te, topi

    from bibench_tvm.presets import resolve_target

    x, kernel = te.placeholder(shape, "float32", "x"), te.placeholder(kernel_shape, "uint8", "kernel")
    one, zero = (tvm.tirx.const(value, "uint8") for value in (1, 0))
    bits = te.compute(shape, lambda *i: tvm.tirx.Select(x(*i) >= 0, one, zero))
    sums = topi.nn.bitserial_conv2d_nhwc(bits, kernel, stride, padding, 1, 1, "uint32", "int32", True)
    function = te.create_prim_func([x, kernel, topi.cast(sums, "float32")])
    return tvm.compile(function, target=resolve_target("host").tvm)
