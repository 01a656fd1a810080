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

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
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


@dataclass(frozen=True)
class _Numbers:
    """What is multiplied and added up: floats, bytes or bits."""

    conv: Convolution
    packing: Packing | None  # None of floats

    @property
    def int8(self) -> bool:
        return self.packing is not None and self.packing.quantizer is not None

    @property
    def dtype(self) -> str:
        """Of activations and weights."""
        return self.packing.dtype if self.packing else "float32"

    @property
    def sums(self) -> str:
        """Their dtype."""
        if self.packing is None:
            return "float32"
        if self.int8:
            return "int32"
        return "uint8" if self.conv.counts_in_bytes else dtype_of_counts(self.conv.products)

    def product(self, a: Any, w: Any, lanes: int) -> Any:
        if self.packing is None:
            return a * w
        if self.int8:
            return _in_16_bits(a, lanes) * _in_16_bits(w, lanes)
        differ = a ^ w  # 0 or 1, where a byte has one channel
        return differ if self.sums == "uint8" else cast(tirx.popcount(differ), self.sums, lanes)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What is computed at a time: of `pixels` neighbours of a row, from column x on, `valid` channels from
    this one on."""

    n: Any
    y: Any
    x: Any
    channel: Any
    pixels: int
    valid: int
    meets: Meets | None  # as of `Strips`

    def buffer(self, dtype: str) -> tirx.Buffer:
        """A number for each channel of each pixel."""
        return T.alloc_buffer((self.pixels * self.valid,), dtype, scope="local")

    def each_vector(self, put: Callable[[int, int, int], None]) -> None:
        """put(pixel, its first channel, channels)"""
        vectors = whole_vectors(self.valid)
        for m in range(self.pixels):
            for lane, lanes in vectors:
                put(m, lane, lanes)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """Its numbers as they lie in memory, and how they are added up."""

    conv: Convolution
    numbers: _Numbers
    halo: tuple[int, int, int, int]  # what stands around the activations
    activations: tirx.Buffer  # [N, H, W, C], flat
    weights: tirx.Buffer  # in_tap_order
    unroll: int  # taps that are written out
    by_rows: bool  # rows of taps that lie outside the image are left out

    def sums(self, block: _Block) -> tirx.Buffer:
        """Of each channel of each pixel of the block."""
        dtype, valid = self.numbers.sums, block.valid
        added = block.buffer(dtype)

        def clear(m: int, lane: int, lanes: int) -> None:
            store(added, m * valid + lane, lanes, spread(tirx.const(0, dtype), lanes))

        block.each_vector(clear)
        if self.by_rows:
            self._add_rows(added, block)
        else:
            taps = self.conv.kernel[0] * self.conv.kernel[1]
            in_pieces(taps, self.unroll, partial(self._add_taps, added, block))
        # The epilogue reads the sums from memory, so that its loops need not be unrolled.
        kept = block.buffer(dtype)

        def keep(m: int, lane: int, lanes: int) -> None:
            at = m * valid + lane
            store(kept, at, lanes, load(added, at, lanes))

        block.each_vector(keep)
        return kept

    def _add_rows(self, sums: tirx.Buffer, block: _Block) -> None:
        # Not a loop from `inside` to `end`: LLVM makes copies of that for each number of rows.
        inside, end = taps_inside(block.y, self.conv, 0)
        with T.serial(0, self.conv.kernel[0]) as kh, T.If(tirx.all(kh >= inside, kh < end)), T.Then():
            for kw in range(self.conv.kernel[1]):
                self._add(sums, block, [(kh, kw)])

    def _add_taps(self, sums: tirx.Buffer, block: _Block, first: Any, count: int) -> None:
        """So many taps from this one on."""
        columns, at_once = self.conv.kernel[1], TOGETHER if self.numbers.int8 else 1
        for i in range(0, count, at_once):
            these = [first + j for j in range(i, min(i + at_once, count))]
            self._add(sums, block, [(j // columns, j % columns) for j in these])

    def _add(self, sums: tirx.Buffer, block: _Block, taps: list[tuple[Any, Any]]) -> None:
        """taps: (row, column) of those whose products are added to the sums at once."""
        numbers, pitch = self.numbers, self.conv.strides[1] * self.conv.out_channels
        places = [(kw, self._first(block, kh, kw), self._of_tap(block, kh, kw)) for kh, kw in taps]

        def add_to(m: int, lane: int, lanes: int) -> None:
            products = [
                numbers.product(
                    load(self.activations, first + m * pitch + lane, lanes),
                    load(self.weights, of_tap + lane, lanes),
                    lanes,
                )
                for kw, first, of_tap in places
                if block.meets is None or block.meets(m, kw)
            ]
            if products:
                new = reduce(operator.add, products)
                new = cast(new, numbers.sums, lanes) if numbers.int8 else new
                at = m * block.valid + lane
                store(sums, at, lanes, load(sums, at, lanes) + new)

        block.each_vector(add_to)

    def _first(self, block: _Block, kh: Any, kw: Any) -> Any:
        """Where the first activation of the block lies that this tap meets."""
        conv, (above, before, below, behind) = self.conv, self.halo
        height, width = conv.height + above + below, conv.width + before + behind
        y = block.y * conv.strides[0] + kh * conv.dilation[0] + (above - conv.padding[0])
        x = block.x * conv.strides[1] + kw * conv.dilation[1] + (before - conv.padding[1])
        return ((block.n * height + y) * width + x) * conv.out_channels + block.channel

    def _of_tap(self, block: _Block, kh: Any, kw: Any) -> Any:
        """Where the first weight of it lies."""
        return (kh * self.conv.kernel[1] + kw) * self.conv.out_channels + block.channel


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
    numbers, channels = _Numbers(conv, packing), conv.out_channels
    taps = conv.kernel[0] * conv.kernel[1]
    cut = _cut(conv, strip) if packing is None else None
    if packing:
        in_shape = packing.shape(conv.batch, conv.height, conv.width)
    elif in_shape is None:
        in_shape = (conv.batch, conv.height, conv.width, channels)

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("activations", T.buffer(in_shape, numbers.dtype))
        weights = T.arg("weights", T.buffer((taps * channels,), numbers.dtype))
        operands = operand_arguments(epilogue)
        borders = Borders(conv, ending)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            copied = packing is None and not cut and any(conv.padding)
            layer = _Layer(
                conv=conv,
                numbers=numbers,
                halo=packing.halo if packing else NO_HALO if cut else conv.padding,
                activations=pad_in_kernel(source, conv) if copied else flat(source),
                weights=weights,
                unroll=strip.unroll,
                by_rows=cut is not None,
            )
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            def compute(block: _Block) -> None:
                sums = layer.sums(block)

                def pixel(m: Any) -> None:
                    def total(lane: Any, channel: Any, lanes: int) -> Any:
                        sum_ = vector(sums, [m * block.valid + lane], lanes)
                        if packing is None or numbers.int8:
                            return sum_
                        return borders.settle(sum_, block.y, block.x + m, channel, lanes)

                    writer.write(block.n, block.y, block.x + m, block.channel, block.valid, total)

                each(block.pixels, pixel)

            with T.parallel(0, conv.batch * conv.out_height) as r:
                n, y = r // conv.out_height, r % conv.out_height
                for strips in cut or whole_strips(conv, strip.pixels):

                    def one(i, these=strips):
                        x = these.first + i * these.pixels
                        of = partial(_Block, n=n, y=y, x=x, pixels=these.pixels, meets=these.meets)
                        in_pieces(
                            channels,
                            strip.lanes,
                            lambda channel, valid: compute(of(channel=channel, valid=valid)),
                        )

                    each(strips.count, one)
    return builder.get()


def _cut(conv: Convolution, strip: Strip) -> list[Strips] | None:
    """How a row of floats between borders is cut into strips, None where there are none or too many."""
    if not any(conv.padding) or strip.unroll < conv.kernel[1]:
        return None
    strips = cut_strips(conv, strip.pixels)
    return strips if sum(s.meets is not None for s in strips) <= MOST_CUT else None


def _in_16_bits(byte: Any, lanes: int) -> Any:
    return cast(cast(byte, "int8", lanes), "int16", lanes)
