"""Depthwise convolution: one output channel a group, so that lanes are channels and nothing is broadcast.

    sum[channel] += activation[channel] ^ weight[channel]              a byte a channel, one in a group
    sum[channel] += popcount(activation[channel] ^ weight[channel])    a byte a group of at most 8 channels
    sum[channel] += activation[channel] * weight[channel]              float or int8, one input in a group

The plain reference is that of convolution.py; the borders are those of borders.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution, dtype_of_counts
from schedules.kernels.convolution import pad_in_kernel
from schedules.parts.bits import Packing
from schedules.parts.borders import Borders, Ending
from schedules.parts.emit import each, flat, in_pieces, load, spread, store, vector
from schedules.parts.epilogue import Epilogue
from schedules.parts.sums import unrolled
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import Choice

LANES = 64
PIXELS = 4  # where sums are bytes
MOST_UNROLLED = 32  # taps, likewise


@dataclass(frozen=True, kw_only=True)
class Strip(Choice):
    """What is computed at a time."""

    pixels: int  # neighbours of an output row, which meet a tap's weights together
    lanes: int  # channels
    unroll: int  # taps that are written out


def default_strip(conv: Convolution, packing: Packing | None) -> Strip:
    narrow, taps = _sums(conv, packing) == "uint8", conv.kernel[0] * conv.kernel[1]
    return Strip(
        pixels=min(conv.out_width, PIXELS if narrow else 1),
        lanes=min(LANES, conv.out_channels),
        unroll=taps if narrow and taps <= MOST_UNROLLED else 1,
    )


def is_depthwise(conv: Convolution, packed: bool) -> bool:
    return conv.out_channels == conv.groups > 1 and conv.channels // conv.groups <= (8 if packed else 1)


def in_tap_order(weights: np.ndarray) -> np.ndarray:
    """[O, KH, KW, 1] -> flat, channels last: kh, kw, o."""
    return np.ascontiguousarray(np.moveaxis(weights[..., 0], 0, -1)).ravel()


def depthwise_convolution(
    conv: Convolution,
    packing: Packing | None,
    epilogue: Epilogue,
    *,
    ending: Ending,
    in_shape: tuple[int, ...] | None = None,
    strip: Strip | None = None,
) -> tirx.PrimFunc:
    """Parameters of the kernel: those of `binary_convolution` or `int8_convolution` (packed in bytes, without
    a zero point), or of `float_convolution`, whose `in_shape` is here [N, H, W, C] where it is not given.

    strip: where it is not given, `default_strip`."""
    strip = strip or default_strip(conv, packing)
    int8 = packing is not None and packing.quantizer is not None
    channels = conv.out_channels
    halo = packing.halo if packing else conv.padding
    top, left = halo[0] - conv.padding[0], halo[1] - conv.padding[1]
    height, width = conv.height + halo[0] + halo[2], conv.width + halo[1] + halo[3]
    if packing:
        in_shape = packing.shape(conv.batch, conv.height, conv.width)
    elif in_shape is None:
        in_shape = (conv.batch, conv.height, conv.width, channels)
    dtype, sum_dtype = packing.dtype if packing else "float32", _sums(conv, packing)
    narrow, taps = sum_dtype == "uint8", conv.kernel[0] * conv.kernel[1]

    def product(a, w, lanes: int):
        if packing is None:
            return a * w
        if int8:
            return _signed(a, lanes) * _signed(w, lanes)
        differ = a ^ w  # 0 or 1, where a byte has one channel
        return differ if narrow else _as(tirx.popcount(differ), sum_dtype, lanes)

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("activations", T.buffer(in_shape, dtype))
        weights = T.arg("weights", T.buffer((conv.kernel[0] * conv.kernel[1] * channels,), dtype))
        operands = operand_arguments(epilogue)
        borders = Borders(conv, ending)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            padded = packing is None and any(conv.padding)
            activations = pad_in_kernel(source, conv) if padded else flat(source)
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            def block(n, oh, ow, pixels: int, start, valid: int):
                """Of `pixels` neighbours in a row, from ow on."""
                part = T.alloc_buffer((pixels * valid,), sum_dtype, scope="local")
                for m in range(pixels):
                    store(part, m * valid, valid, spread(tirx.const(0, sum_dtype), valid))

                def tap(i):
                    kh, kw = i // conv.kernel[1], i % conv.kernel[1]
                    y = oh * conv.strides[0] + kh * conv.dilation[0] + top
                    x = ow * conv.strides[1] + kw * conv.dilation[1] + left
                    first = ((n * height + y) * width + x) * channels + start
                    w = load(weights, i * channels + start, valid)
                    for m in range(pixels):
                        a = load(activations, first + m * conv.strides[1] * channels, valid)
                        store(part, m * valid, valid, load(part, m * valid, valid) + product(a, w, valid))

                unrolled(taps, strip.unroll, tap)
                # The epilogue reads the sums from memory, so that its loops need not be unrolled.
                sums = T.alloc_buffer((pixels * valid,), sum_dtype, scope="local")
                for m in range(pixels):
                    store(sums, m * valid, valid, load(part, m * valid, valid))

                def pixel(m):
                    def total(lane, channel, lanes):
                        sum_ = vector(sums, [m * valid + lane], lanes)
                        if packing is None or int8:
                            return sum_
                        return borders.settle(sum_, oh, ow + m, channel, lanes)

                    writer.write(n, oh, ow + m, start, valid, total)

                each(pixels, pixel)

            def row(n, oh, ow, pixels: int):
                in_pieces(channels, strip.lanes, partial(block, n, oh, ow, pixels))

            with T.parallel(0, conv.batch * conv.out_height) as r:
                n, oh = r // conv.out_height, r % conv.out_height
                in_pieces(conv.out_width, strip.pixels, partial(row, n, oh))
    return builder.get()


def _sums(conv: Convolution, packing: Packing | None) -> str:
    """The dtype of a sum."""
    if packing is None:
        return "float32"
    if packing.quantizer:
        return "int32"
    return "uint8" if conv.counts_in_bytes else dtype_of_counts(conv.products)


def _as(value: Any, dtype: str, lanes: int) -> Any:
    return value.astype(dtype if lanes == 1 else f"{dtype}x{lanes}")


def _signed(byte: Any, lanes: int) -> Any:
    return _as(_as(byte, "int8", lanes), "int32", lanes)
