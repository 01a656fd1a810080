"""Float convolution of a network's input with half the products: Winograd's method along the rows.

OUTPUTS neighbours of a row, y[j] = sum_k g[k] x[j + k] with k < taps, are found from n = OUTPUTS + taps - 1
products instead of OUTPUTS * taps (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray,
Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4, in one dimension):

    y = A^T [(G g) * (B^T x)]        (toom_cook.py has the matrices)

A stride s along the rows makes s convolutions of stride 1, one for each phase of the taps, k = s i + phase,
whose products at a point are added up before A^T. So the sums at one point are a product of matrices,
[tiles of a row, kernel rows * channels * phases] x [the same, output channels]. Down the columns and over the
channels the method is the direct one: a row of the input is transformed once for all that read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.emit import each, flat, in_pieces, load, spread, store, whole_vectors
from schedules.parts.epilogue import Epilogue
from schedules.parts.tiling import each_block, split_row
from schedules.parts.toom_cook import matrices, outputs_from, values_at
from schedules.parts.weights import Block, full_and_rest
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import KernelTarget, Tile

# Of the sizes tried, the fastest whose rounding errors are still about twice those of the direct method.
OUTPUTS = 4
MOST_TAPS = 5
# What a band of output rows reads stays in the cache; the bands keep the cores of a board busy alike.
ROWS_OF_BAND = 8
CORES = 4


def taps_of(conv: Convolution) -> int:
    """Of the longest phase."""
    return -(-conv.kernel[1] // conv.strides[1])


def saves_products(conv: Convolution) -> bool:
    """A quarter of them at least; more taps need more points, which round worse."""
    made = -(-conv.out_width // OUTPUTS) * (OUTPUTS + taps_of(conv) - 1) * conv.strides[1]
    return taps_of(conv) <= MOST_TAPS and 4 * made <= 3 * conv.out_width * conv.kernel[1]


def is_faster(conv: Convolution, target: KernelTarget) -> bool:
    """Whether this method takes less time than the direct kernel for a network's input."""
    return saves_products(conv) and target.winograd_tile(conv) is not None


def default_band(conv: Convolution) -> int:
    return -(-conv.out_height // (CORES * -(-conv.out_height // (CORES * ROWS_OF_BAND))))


def transform_weights(weights: np.ndarray, conv: Convolution, outputs: int = OUTPUTS) -> np.ndarray:
    """float32 [O, C, KH, KW] -> [O, n, KH, C * phases], rounded once; for `lay_out`."""
    phases, taps = conv.strides[1], taps_of(conv)
    out_channels, channels, rows, columns = weights.shape
    filled = np.zeros((out_channels, channels, rows, taps * phases))
    filled[..., :columns] = weights
    kernel = np.asarray(matrices(taps, outputs)[1], np.float64)
    made = np.einsum("pk,ochks->ophcs", kernel, filled.reshape(out_channels, channels, rows, taps, phases))
    return made.reshape(out_channels, len(kernel), rows, channels * phases).astype(np.float32)


def winograd_convolution(
    conv: Convolution,
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    outputs: int = OUTPUTS,
    rows_of_band: int | None = None,
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 [N, C, H, W], weights as `lay_out` gives them from
    `transform_weights`, the epilogue's operands, and the outputs. For a convolution of up to MOST_TAPS taps a
    phase, without groups, and without dilation along the rows.

    tile: of `outputs` pixels for each of its columns of values; outputs: neighbours that are found together,
    as `transform_weights` had it; rows_of_band: output rows that a thread computes, where that is not
    `default_band`.
    """
    plan = _Plan(
        conv=conv,
        tile=tile,
        outputs=outputs,
        band=rows_of_band or default_band(conv),
        shuffled=target.together > 1,
    )
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        shape = (conv.batch, conv.channels, conv.height, conv.width)
        images = T.arg("activations", T.buffer(shape, "float32"))
        weights = T.arg("weights", T.buffer((plan.weights,), "float32"))
        operands = operand_arguments(epilogue)
        written = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            pixels = flat(images)
            writer = Writer(epilogue, written, operands, conv.out_shape[:3])
            writer.clear_halos()
            with T.parallel(0, conv.batch * plan.bands) as r:
                n, first = r // plan.bands, r % plan.bands * plan.band
                band = _Band.begun(plan, pixels, weights, writer, n, first)
                each(plan.height, lambda y: each(conv.channels, lambda c: band.transform(y, c)))
                with T.serial(first, tirx.min(first + plan.band, conv.out_height)) as y:
                    each_block(
                        *plan.blocks,
                        lambda block, channel: band.compute(_Row(y=y, block=block, channel=channel)),
                    )
    return builder.get()


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Sizes of a kernel, all known when it is made."""

    conv: Convolution
    tile: Tile
    outputs: int
    band: int  # output rows
    shuffled: bool  # whether values are broadcast from a register, and not from memory

    @property
    def phases(self) -> int:
        return self.conv.strides[1]

    @property
    def steps(self) -> int:
        """Products at a point for each row of the kernel."""
        return self.conv.channels * self.phases

    @property
    def depth(self) -> int:
        """Products of a sum at a point."""
        return self.conv.kernel[0] * self.steps

    @property
    def points(self) -> int:
        return self.outputs + taps_of(self.conv) - 1

    @property
    def lanes(self) -> int:
        """Of a vector."""
        return self.tile.quantum

    @property
    def tiles(self) -> int:
        """Of an output row."""
        return -(-self.conv.out_width // self.outputs)

    @property
    def pitch(self) -> int:
        """Values at one point of a row, in whole vectors."""
        return -(-self.tiles // self.lanes) * self.lanes

    @property
    def span(self) -> int:
        """Columns of the input from one tile to the next."""
        return self.outputs * self.phases

    @property
    def reach(self) -> int:
        """Tiles whose columns are read."""
        return self.pitch + (self.points - 1) // self.outputs

    @property
    def bands(self) -> int:
        return -(-self.conv.out_height // self.band)

    @property
    def height(self) -> int:
        """Rows of the input that a band reads."""
        conv = self.conv
        return (self.band - 1) * conv.strides[0] + (conv.kernel[0] - 1) * conv.dilation[0] + 1

    @property
    def together(self) -> tuple[int, int, int]:
        """How many tiles of a row are computed at once, as `split_row` has it."""
        return split_row(self.tiles, self.tile.pixels // self.outputs)

    @property
    def blocks(self) -> tuple[list[Block], list[Block]]:
        return full_and_rest(self.conv.out_channels, self.tile.lanes, self.tile.quantum)

    @property
    def weights(self) -> int:
        full, rest = self.blocks
        return sum(block.width for block in full + rest) * self.points * self.depth

    def row_of_values(self, point: Any, step: Any) -> Any:
        """Where the values at a point begin; step: row of the band, channel, phase."""
        return (point * self.height * self.steps + step) * self.pitch

    def products_at(self, point: Any, t: Any) -> Any:
        """Where the sums of tile t begin."""
        _, most, _ = self.together
        return (point * most + t) * self.tile.lanes


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Output row y of the channels of a block, which begin at `channel`."""

    y: Any
    block: Block
    channel: Any


@dataclass(frozen=True, kw_only=True)
class _Band:
    """Output rows from `first` on of image n, which one thread computes."""

    plan: _Plan
    pixels: tirx.Buffer  # of the input, flat
    weights: tirx.Buffer
    writer: Writer
    n: Any
    first: Any
    # Its memory, float32:
    columns: tirx.Buffer  # a row of the input: [span, reach]
    values: tirx.Buffer  # B^T x: [points, height * steps, pitch]
    products: tirx.Buffer  # the sums at the points: [points, most tiles, lanes of a block]

    @classmethod
    def begun(
        cls, plan: _Plan, pixels: tirx.Buffer, weights: tirx.Buffer, writer: Writer, n: Any, first: Any
    ) -> _Band:
        return cls(
            plan=plan,
            pixels=pixels,
            weights=weights,
            writer=writer,
            n=n,
            first=first,
            columns=T.alloc_buffer((plan.span * plan.reach,), "float32"),
            # A vector that begins in the last row may end beyond it.
            values=T.alloc_buffer((plan.row_of_values(plan.points, 0) + plan.lanes,), "float32"),
            products=T.alloc_buffer((plan.products_at(plan.points, 0),), "float32"),
        )

    def transform(self, y: Any, c: Any) -> None:
        """Row y of what the band reads, channel c: its values at the points."""
        plan, conv, lanes = self.plan, self.plan.conv, self.plan.lanes
        _, _, values_of = matrices(taps_of(conv), plan.outputs)
        row = self.first * conv.strides[0] + y - conv.padding[0]
        _clear(self.columns, lanes)
        with T.If(tirx.all(row >= 0, row < conv.height)), T.Then():
            start = ((self.n * conv.channels + c) * conv.height + row) * conv.width
            _sort_columns(self.pixels, start, self.columns, conv, plan.span)

        def of_vector(phase: int, v: Any) -> None:
            taps = range(phase, phase + plan.phases * plan.points, plan.phases)
            first_of = [k % plan.span * plan.reach + k // plan.span for k in taps]
            read = [T.Bind(load(self.columns, k + v * lanes, lanes)) for k in first_of]
            step = (y * conv.channels + c) * plan.phases + phase
            for p, value in enumerate(values_at(values_of, read, lanes)):
                store(self.values, plan.row_of_values(p, step) + v * lanes, lanes, value)

        for phase in range(plan.phases):
            each(plan.pitch // lanes, partial(of_vector, phase))

    def compute(self, row: _Row) -> None:
        def groups(number: int, extent: int, first_tile: int) -> None:
            """`number` times `extent` tiles."""

            def group(g: Any) -> None:
                tile = first_tile + g * extent
                each(self.plan.points, lambda p: self._multiply(row, p, tile, extent))
                each(extent, lambda t: self._write(row, t, (tile + t) * self.plan.outputs))

            each(number, group)

        larger, most, smaller = self.plan.together
        groups(larger, most, 0)
        groups(smaller, most - 1, larger * most)

    def _multiply(self, row: _Row, p: Any, first_tile: Any, tiles: int) -> None:
        """The sums at point p for some tiles of a row."""
        plan, conv, width = self.plan, self.plan.conv, row.block.width
        offset = row.channel * plan.points * plan.depth
        sums = T.alloc_buffer((tiles * width,), "float32", scope="local")
        vectors = whole_vectors(width)
        for t in range(tiles):
            for lane, lanes in vectors:
                store(sums, t * width + lane, lanes, spread(tirx.const(0, "float32"), lanes))

        def row_of_kernel(kh: Any) -> None:
            y = (row.y - self.first) * conv.strides[0] + kh * conv.dilation[0]
            a_start = (p * plan.height + y) * plan.steps * plan.pitch + first_tile
            w_start = offset + (p * plan.depth + kh * plan.steps) * width
            for k in range(plan.steps):
                w = [T.Bind(load(self.weights, w_start + k * width + at, lanes)) for at, lanes in vectors]
                for t in range(tiles):
                    a = a_start + k * plan.pitch + t
                    if not plan.shuffled:
                        value = self.values[a]
                    else:
                        if t % plan.lanes == 0:
                            read = T.Bind(load(self.values, a, plan.lanes))
                        value = tirx.Shuffle([read], [t % plan.lanes])
                    for (lane, lanes), of_vector in zip(vectors, w, strict=True):
                        new = load(sums, t * width + lane, lanes) + spread(value, lanes) * of_vector
                        store(sums, t * width + lane, lanes, new)

        each(conv.kernel[0], row_of_kernel)
        for t in range(tiles):
            for lane, lanes in vectors:
                store(
                    self.products, plan.products_at(p, t) + lane, lanes, load(sums, t * width + lane, lanes)
                )

    def _write(self, row: _Row, t: Any, x: Any) -> None:
        """The outputs of tile t of `products`, which begin at column x."""
        plan, lanes, width = self.plan, self.plan.lanes, row.block.width
        output, _, _ = matrices(taps_of(plan.conv), plan.outputs)
        # The epilogue reads them from memory, so that its loops need not be unrolled.
        settled = T.alloc_buffer((plan.outputs * width,), "float32", scope="local")

        def of_vector(v: Any) -> None:
            where = [plan.products_at(p, t) + v * lanes for p in range(plan.points)]
            read = [T.Bind(load(self.products, w, lanes)) for w in where]
            for j, value in enumerate(outputs_from(output, read, lanes)):
                store(settled, j * width + v * lanes, lanes, value)

        each(width // lanes, of_vector)
        with T.serial(0, tirx.min(plan.outputs, plan.conv.out_width - x)) as j:

            def total(lane: Any, channel: Any, extent: int) -> Any:
                return load(settled, j * width + lane, extent)

            self.writer.write(self.n, row.y, x + j, row.channel, row.block.valid, total)


def _clear(buffer: tirx.Buffer, lanes: int) -> None:
    zero = tirx.const(0, "float32")
    in_pieces(int(buffer.shape[0]), lanes, lambda at, count: store(buffer, at, count, spread(zero, count)))


def _sort_columns(pixels: tirx.Buffer, start, columns: tirx.Buffer, conv: Convolution, span: int) -> None:
    """One row of the input, from `start` on -> [span, tiles]: neighbours in `columns` are a tile apart."""
    reach, left = int(columns.shape[0]) // span, conv.padding[1]
    end = min(left + conv.width, span * reach)
    first, last = -(-left // span), end // span

    def copy(tile, column: int):
        """Counted with the padding."""
        T.buffer_store(columns, pixels[start + tile * span + column - left], [column * reach + tile])

    def whole(t):
        for column in range(span):
            copy(first + t, column)

    each(max(0, last - first), whole)
    for position in range(left, end):
        if not first <= position // span < last:
            copy(position // span, position % span)
