"""Quantizing images of a few planes: [N, C, H, W] -> bytes [N, H, W, C], many pixels at a time.

The plain reference is `bits.pack` of the turned image.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.bits import Packing
from schedules.parts.emit import flat, in_pieces, load, spread, store
from schedules.parts.write_back import KERNEL_ATTRIBUTES

LANES = 32


def planar_quantizing_kernel(batch: int, height: int, width: int, packing: Packing) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 [N, C, H, W], packed output."""
    quantizer = packing.quantizer
    assert quantizer is not None
    top, left, bottom, right = packing.halo
    shape = packing.shape(batch, height, width)
    channels = packing.channels
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("activations", T.buffer((batch, channels, height, width), "float32"))
        out = T.arg("output0", T.buffer(shape, packing.dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            images, words = flat(source), flat(out)
            nothing = tirx.const(packing.nothing, packing.dtype)

            def zeros(start, count: int):
                """`count` pixels that stand for zeros."""
                in_pieces(
                    count * channels,
                    LANES,
                    lambda at, lanes: store(words, start + at, lanes, spread(nothing, lanes)),
                )

            def quantized(n, y, x, lanes: int):
                """`lanes` pixels, all channels of one before the next."""
                planes = [((n * channels + c) * height + y) * width + x for c in range(channels)]
                found = [quantizer.emit(load(images, plane, lanes), lanes) for plane in planes]
                if channels == 1:
                    return found[0]
                return tirx.Shuffle(found, [c * lanes + i for i in range(lanes) for c in range(channels)])

            with T.parallel(0, batch * shape[1]) as r:
                n, row = r // shape[1], r % shape[1]
                first, pitch = r * shape[2] * channels, channels

                def some(x, lanes: int):
                    value = quantized(n, row - top, x, lanes)
                    store(words, first + (left + x) * pitch, lanes * pitch, value)

                with T.If(tirx.all(row >= top, row < top + height)):
                    with T.Then():
                        zeros(first, left)
                        in_pieces(width, LANES, some)
                        zeros(first + (left + width) * pitch, right)
                    with T.Else():
                        zeros(first, shape[2])
    return builder.get()
