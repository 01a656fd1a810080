"""Depthwise convolution: one output channel a group, so that lanes are channels and nothing is broadcast.

    sum[channel] += activation[channel] ^ weight[channel]              a byte a channel, one in a group
    sum[channel] += popcount(activation[channel] ^ weight[channel])    a byte a group of at most 8 channels
    sum[channel] += activation[channel] * weight[channel]              float or int8, one input in a group

Packed activations come with their border. Floats do not: what lies beyond the image is left out, row by row,
and in the strips at the ends of a row tap by tap; only where that would be too many strips are they copied
between zeros before.

The plain reference is that of convolution.py; the borders are those of borders.py.
"""

from __future__ import annotations

from collections.abc import Callable
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
from schedules.parts.emit import cast, each, flat, in_pieces, load, spread, store, vector, whole_vectors
from schedules.parts.epilogue import Epilogue
from schedules.parts.windows import Meets, Strips, cut_strips, taps_inside, whole_strips
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import Choice, KernelTarget

MOST_UNROLLED = 32  # taps
MOST_CUT = 4  # strips of a row that are emitted by themselves, as some of their taps are outside
NO_HALO = (0, 0, 0, 0)
TOGETHER = 2  # products of two bytes that 16 bits hold the sum of: 2 * 127 * 127 < 2**15


@dataclass(frozen=True, kw_only=True)
class Strip(Choice):
    """What is computed at a time."""

    pixels: int  # neighbours of an output row, which meet a tap's weights together
    lanes: int  # channels
    unroll: int  # taps that are written out


def default_strip(conv: Convolution, packing: Packing | None, target: KernelTarget, word: int = 1) -> Strip:
    """Measured on Zen 4 and counted on NEON, over the layers of MobileNetV2. word: channels of a word that is
    written."""
    rows, columns = conv.kernel
    by_rows = packing is None and any(conv.padding)
    unrolled = [taps for taps in (columns if by_rows else rows * columns, columns) if taps <= MOST_UNROLLED]
    pixels, in_vector = min(4, target.registers // 4), target.vector_bits // 8
    if packing is None:
        # Neighbours share weights; of a processor that reads operands from memory one vector is enough.
        lanes = min(16, target.registers * target.floats // 8)
    elif packing.quantizer:
        lanes = in_vector
    else:
        pixels, lanes = target.registers // 8, max(32, in_vector)
    return Strip(
        pixels=min(conv.out_width, pixels),
        lanes=min(-(-lanes // word) * word, conv.out_channels),
        unroll=unrolled[0] if unrolled else 1,
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
    strip: Strip,
) -> tirx.PrimFunc:
    """Parameters of the kernel: those of `binary_convolution` or `int8_convolution` (packed in bytes, without
    a zero point), or of `float_convolution`, whose `in_shape` is here [N, H, W, C] where it is not given."""
    int8 = packing is not None and packing.quantizer is not None
    channels = conv.out_channels
    at_once = TOGETHER if int8 else 1
    cut = _cut(conv, strip) if packing is None else None
    halo = packing.halo if packing else NO_HALO if cut else conv.padding
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
            return _in_16_bits(a, lanes) * _in_16_bits(w, lanes)
        differ = a ^ w  # 0 or 1, where a byte has one channel
        return differ if narrow else cast(tirx.popcount(differ), sum_dtype, lanes)

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("activations", T.buffer(in_shape, dtype))
        weights = T.arg("weights", T.buffer((conv.kernel[0] * conv.kernel[1] * channels,), dtype))
        operands = operand_arguments(epilogue)
        borders = Borders(conv, ending)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            copied = packing is None and not cut and any(conv.padding)
            activations = pad_in_kernel(source, conv) if copied else flat(source)
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            def block(n, oh, ow, pixels: int, meets: Meets | None, start, valid: int):
                """Of `pixels` neighbours in a row, from ow on. meets: as of `Strips`."""
                part = T.alloc_buffer((pixels * valid,), sum_dtype, scope="local")
                vectors = whole_vectors(valid)

                def each_vector(put: Callable[[int, int, int], None]):
                    """put(pixel, its first channel, channels)"""
                    for m in range(pixels):
                        for lane, lanes in vectors:
                            put(m, lane, lanes)

                def clear(m, lane, lanes):
                    store(part, m * valid + lane, lanes, spread(tirx.const(0, sum_dtype), lanes))

                def add(taps: list[tuple[Any, Any]]):
                    """(row, column) of those whose products are added to the sums at once."""
                    places = []
                    for kh, kw in taps:
                        y = oh * conv.strides[0] + kh * conv.dilation[0] + top
                        x = ow * conv.strides[1] + kw * conv.dilation[1] + left
                        first = ((n * height + y) * width + x) * channels + start
                        places.append((kw, first, (kh * conv.kernel[1] + kw) * channels + start))

                    def add_to(m, lane, lanes):
                        new = None
                        for kw, first, of_tap in places:
                            if meets is None or meets(m, kw):
                                a = load(activations, first + m * conv.strides[1] * channels + lane, lanes)
                                one = product(a, load(weights, of_tap + lane, lanes), lanes)
                                new = one if new is None else new + one
                        if new is not None:
                            new = cast(new, sum_dtype, lanes) if int8 else new
                            at = m * valid + lane
                            store(part, at, lanes, load(part, at, lanes) + new)

                    each_vector(add_to)

                def written_out(first, count: int):
                    for i in range(0, count, at_once):
                        these = [first + j for j in range(i, min(i + at_once, count))]
                        add([(j // conv.kernel[1], j % conv.kernel[1]) for j in these])

                each_vector(clear)
                if cut:
                    # Not a loop from `inside` to `end`: LLVM makes copies of that for each number of rows.
                    inside, end = taps_inside(oh, conv, 0)
                    with T.serial(0, conv.kernel[0]) as kh, T.If(tirx.all(kh >= inside, kh < end)), T.Then():
                        for kw in range(conv.kernel[1]):
                            add([(kh, kw)])
                else:
                    in_pieces(taps, strip.unroll, written_out)
                # The epilogue reads the sums from memory, so that its loops need not be unrolled.
                sums = T.alloc_buffer((pixels * valid,), sum_dtype, scope="local")

                def settle(m, lane, lanes):
                    at = m * valid + lane
                    store(sums, at, lanes, load(part, at, lanes))

                each_vector(settle)

                def pixel(m):
                    def total(lane, channel, lanes):
                        sum_ = vector(sums, [m * valid + lane], lanes)
                        if packing is None or int8:
                            return sum_
                        return borders.settle(sum_, oh, ow + m, channel, lanes)

                    writer.write(n, oh, ow + m, start, valid, total)

                each(pixels, pixel)

            with T.parallel(0, conv.batch * conv.out_height) as r:
                n, oh = r // conv.out_height, r % conv.out_height
                for strips in cut or whole_strips(conv, strip.pixels):

                    def one(i, these=strips):
                        ow = these.first + i * these.pixels
                        in_pieces(channels, strip.lanes, partial(block, n, oh, ow, these.pixels, these.meets))

                    each(strips.count, one)
    return builder.get()


def _cut(conv: Convolution, strip: Strip) -> list[Strips] | None:
    """How a row of floats between borders is cut into strips, None where there are none or too many."""
    if not any(conv.padding) or strip.unroll < conv.kernel[1]:
        return None
    strips = cut_strips(conv, strip.pixels)
    return strips if sum(s.meets is not None for s in strips) <= MOST_CUT else None


def _sums(conv: Convolution, packing: Packing | None) -> str:
    """The dtype of a sum."""
    if packing is None:
        return "float32"
    if packing.quantizer:
        return "int32"
    return "uint8" if conv.counts_in_bytes else dtype_of_counts(conv.products)


def _in_16_bits(byte: Any, lanes: int) -> Any:
    return cast(cast(byte, "int8", lanes), "int16", lanes)
