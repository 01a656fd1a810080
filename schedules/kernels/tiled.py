"""A convolution in register tiles, whatever its numbers are: what binary, int8 and float kernels share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.apart import Called, function_of
from schedules.parts.bit_weights import BitWeights, Decoder
from schedules.parts.emit import each, in_pieces, vector
from schedules.parts.epilogue import SUM, Epilogue, Output
from schedules.parts.extremes import Extremes, Unsettled
from schedules.parts.planes import Planes
from schedules.parts.sums import Runs
from schedules.parts.tiling import Kept, Place, Tiling
from schedules.parts.weights import Block
from schedules.parts.write_back import (
    KERNEL_ATTRIBUTES,
    Writer,
    operand_arguments,
    output_arguments,
    replacement,
)
from schedules.targets.kernel_target import KernelTarget, Tile


@dataclass(frozen=True, kw_only=True)
class Image:
    """The activations of a layer as its kernel reads them. An element is what an address counts: a word of
    bits, a byte, or a float."""

    conv: Convolution
    shape: tuple[int, ...]  # of the kernel's parameter
    dtype: str
    halo: tuple[int, int, int, int]  # what stands around it; it covers the padding
    elements: int  # of a pixel, in one group and one plane
    pitch: int  # elements from one pixel to the next
    planar: bool = False  # [N, C, H, W]

    @property
    def planes(self) -> int:
        return self.conv.channels if self.planar else 1

    @property
    def runs(self) -> int:
        """How many pieces of neighbouring elements an output reads."""
        return self.planes * self.conv.kernel[0] * (self.conv.kernel[1] // self.conv.taps_in_a_run)

    @property
    def run(self) -> int:
        """Elements of such a piece."""
        return self.conv.taps_in_a_run * self.elements

    def starts(self, place: Place, i: Any) -> list[Any]:
        """Where run i begins, of each pixel of a tile."""
        conv, first = self.conv, self.start(place.n, place.y, place.x, place.group, i)
        down, across = conv.strides[0] * self._row_pitch, conv.strides[1] * self.pitch
        return [
            first + (m // place.columns) * down + (m % place.columns) * across for m in range(place.pixels)
        ]

    @property
    def _row_pitch(self) -> int:
        _, left, _, right = self.halo
        return (self.conv.width + left + right) * self.pitch

    def start(self, n: Any, y: Any, x: Any, group: Any, i: Any) -> Any:
        """Where run i begins, of output (y, x) of image n."""
        conv, (rows, columns) = self.conv, self.conv.kernel
        top, left, bottom, _ = self.halo
        height = conv.height + top + bottom
        contiguous = conv.taps_in_a_run == columns
        kh, kw = (i % rows, 0) if contiguous else (i // columns, i % columns)
        row = (
            (i // rows * height if self.planar else 0)
            + y * conv.strides[0]
            + kh * conv.dilation[0]
            + (top - conv.padding[0])
        )
        column = x * conv.strides[1] + kw * conv.dilation[1] + (left - conv.padding[1])
        return (
            (n * self.planes * height + row) * self._row_pitch + column * self.pitch + group * self.elements
        )


# settle(sums, y, x, channel, lanes): what the epilogue gets for the sums of `lanes` channels from this one
# on, at one pixel.
Settle = Callable[[Any, Any, Any, Any, int], Any]


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What a kernel does with its numbers."""

    weights: str  # their dtype
    sums: str  # their dtype
    words: int  # of weights that meet one run of activations
    deep: bool = False  # whether `add_up` knows a tile with a depth
    read: Callable[[tirx.Buffer], tirx.Buffer]  # the kernel's parameter -> the elements of an `Image`, flat
    # The weights as they are stored -> as `add_up` reads them, once for a call of the kernel.
    prepare: Callable[[tirx.Buffer], tirx.Buffer] = lambda weights: weights
    add_up: Callable[[Runs, tirx.Buffer, int, int], None]  # (runs, sums, pixels, width): writes a tile's sums
    settle: Callable[[], Settle]  # called where the parameters are declared; it declares its own tables
    # Whether what it gives falls as a sum rises; None where that is not known, or differs by pixel.
    falls: bool | None = None
    code: BitWeights | None = None  # of weights that are stored in bits
    apart: bool = False  # the sums of a tile are a function of their own, see parts/apart.py
    halos_alone: bool = False  # as of `Writer.clear_halos`
    # So many channels of all pixels of a tile are written before the next, so that what the epilogue reads of
    # them stays in registers; None where all of a pixel are.
    written: int | None = None


class _Weights:
    """The parameters of a kernel for its weights. buffer: what its sums are made of."""

    def __init__(self, arithmetic: Arithmetic, tiling: Tiling):
        self.decoder: Decoder | None = None
        if arithmetic.code is None:
            self.buffer = T.arg("weights", T.buffer((tiling.weights,), arithmetic.weights))
            return
        lanes = tiling.weights // tiling.products
        stored = lanes * arithmetic.code.bytes_of(tiling.products)
        self.decoder = Decoder(
            code=arithmetic.code,
            bits=T.arg("weights", T.buffer((stored,), "uint8")),
            low=T.arg("low", T.buffer((lanes,), arithmetic.weights)),
            high=T.arg("high", T.buffer((lanes,), arithmetic.weights)),
            words=tiling.products,
            run=arithmetic.words,
        )

    def begin(self, lane: Any, width: int) -> None:
        if self.decoder:
            self.buffer = self.decoder.decode(lane, width)


def tiled_convolution(
    image: Image,
    arithmetic: Arithmetic,
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    weights_per_row: bool = False,
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations, weights, the epilogue's operands, the tables of `settle`, and
    the outputs. Weights in bits are three parameters, those of `store_in_bits`, and all rows of a block are
    computed before the next block, whatever the tile says. Raises ValueError for a depth that its runs do not
    have."""
    conv = image.conv
    if arithmetic.words % tile.depth or tile.depth > 1 and not arithmetic.deep:
        run = f"a run of {arithmetic.words} {arithmetic.weights}"
        raise ValueError(f"a depth of {tile.depth} does not fit {run}")
    # Rows whose extremes are written, where that is what is wanted.
    extreme = next((_rows_of_extreme(output, conv) for output in epilogue.outputs if output.extreme), 0)
    if extreme == 1:
        tile = replace(tile, rows=1)
    products = image.runs * arithmetic.words
    tiling = Tiling(conv=conv, tile=tile, products=products, weights_per_row=weights_per_row)
    called = Called()
    written = arithmetic.written if _in_vectors(epilogue, arithmetic.written or 1) else None

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr({**KERNEL_ATTRIBUTES, **replacement(epilogue, conv.out_channels // conv.groups)})
        source = T.arg("activations", T.buffer(image.shape, image.dtype))
        weights = _Weights(arithmetic, tiling)
        operands = operand_arguments(epilogue)
        settle = arithmetic.settle()
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            activations = arithmetic.read(source)
            if not weights.decoder:
                weights.buffer = arithmetic.prepare(weights.buffer)
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos(arithmetic.halos_alone)

            def compute(place: Place) -> None:
                width = place.block.width
                sums = T.alloc_buffer((place.pixels * width,), arithmetic.sums, scope="local")
                if arithmetic.apart:
                    first = activations[image.starts(place, 0)[0]]
                    function = _sums_of_tile(image, arithmetic, activations, place)
                    called.call(function, first, weights.buffer[place.weights], sums[0])
                    # TVM keeps as much of a buffer as it sees touched, and the function writes all of this.
                    T.evaluate(T.address_of(sums[place.pixels * width - 1]))
                else:
                    runs = Runs(
                        activations=activations,
                        weights=weights.buffer,
                        count=image.runs,
                        words=arithmetic.words,
                        starts=lambda i: image.starts(place, i),
                        offset=0 if weights.decoder else place.weights,
                    )
                    arithmetic.add_up(runs, sums, place.pixels, width)
                if isinstance(writer.kept, Extremes) and writer.kept.sums:
                    writer.kept.take(sums, place.pixels)
                    return

                def write(first: Any, valid: int) -> None:
                    """So many channels of each pixel, from this one of the block on."""

                    def pixel(m: Any) -> None:
                        y, x = place.pixel(m)

                        def total(lane: Any, channel: Any, lanes: int) -> Any:
                            at = m * width + first + lane
                            return settle(vector(sums, [at], lanes), y, x, channel, lanes)

                        writer.write(place.n, y, x, place.channel + first, valid, total)

                    each(place.pixels, pixel)

                in_pieces(place.block.valid, written or place.block.valid, write)

            buffers = list(zip(epilogue.outputs, outputs, strict=True))

            def keep(n: Any, top: Any, rows: int, channel: Any, block: Block) -> Kept:
                if extreme:
                    image = n * (conv.out_height // rows) + top // rows
                    start = image * conv.out_channels + channel
                    sums = _unsettled(arithmetic, settle, epilogue, channel)
                    writer.kept = Extremes(buffers, start, block.valid, block.width, sums)
                else:
                    writer.kept = Planes(buffers, n, top, rows, channel, block.valid, target.floats)
                return writer.kept

            if extreme or any(output.form == "planar" for output in epilogue.outputs):
                tiling.by_bands(extreme or tiling.band, compute, keep, weights.begin)
            elif tile.blocks_outside or weights.decoder:
                tiling.by_blocks(compute, weights.begin)
            else:
                tiling.by_rows(compute)
    return called.carried_by(builder.get())


def _rows_of_extreme(output: Output, conv: Convolution) -> int:
    """Of an image: all, or one."""
    return conv.batch * conv.out_height * conv.out_channels // math.prod(output.shape)


def _unsettled(arithmetic: Arithmetic, settle: Settle, epilogue: Epilogue, channel: Any) -> Unsettled | None:
    """The sums from this channel on, where nothing but their extremes is written; None for anything else."""
    of_sums = all(output.extreme and output.value == SUM for output in epilogue.outputs)
    if not of_sums or arithmetic.falls is None:
        return None
    return Unsettled(
        dtype=arithmetic.sums,
        falls=arithmetic.falls,
        settle=lambda sums, lane, lanes: settle(sums, 0, 0, channel + lane, lanes),
    )


def _in_vectors(epilogue: Epilogue, lanes: int) -> bool:
    """Whether all that it writes can be written for so many channels at a time."""
    return not any(
        o.form == "planar" or o.extreme or o.packing and lanes % o.packing.per_word for o in epilogue.outputs
    )


def _sums_of_tile(
    image: Image, arithmetic: Arithmetic, activations: tirx.Buffer, place: Place
) -> tirx.PrimFunc:
    """Of all tiles of these extents: a function of the activations from the first that the tile reads on, the
    weights of its block, and the sums, which it writes."""
    pixels, width = place.pixels, place.block.width
    corner = replace(place, n=0, y=0, x=0, group=0)
    origin = image.starts(corner, 0)[0]

    def body(activations: tirx.Buffer, weights: tirx.Buffer, sums: tirx.Buffer) -> None:
        runs = Runs(
            activations=activations,
            weights=weights,
            count=image.runs,
            words=arithmetic.words,
            starts=lambda i: [start - origin for start in image.starts(corner, i)],
            offset=0,
        )
        arithmetic.add_up(runs, sums, pixels, width)

    tensors = {
        "activations": (int(activations.shape[0]), str(activations.dtype)),
        "weights": (image.runs * arithmetic.words * width, arithmetic.weights),
        "sums": (pixels * width, arithmetic.sums),
    }
    return function_of(tensors, body)
