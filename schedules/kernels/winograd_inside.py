"""Float 3x3 convolution inside a network, channels last, by Winograd's method along rows and columns.

A tile of 2 x 4 outputs, which the direct kernel makes of 72 products, is found from 24: the method in one
dimension (toom_cook.py) for 2 outputs of a column, nested into that for 4 of a row (Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks, CVPR 2016, section 4):

    Y = A^T [(G g H^T) * (B^T x C)] D        with A, B, G of 2 outputs and D, C, H of 4

4 x 4 outputs would take a fourth of the products, and round four times as coarsely as the direct kernel; so
does this one and a half times. At each of the 24 points the sums are a product of matrices, [tiles, channels]
x [channels, output channels]. The tiles are those of a band of rows, as many as fit into a cache; threads
share out the points of a band, so that each weight is read once for a band and by one thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.kernels.convolution import pad_in_kernel
from schedules.parts.emit import each, in_pieces, load, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.sums import Runs, across
from schedules.parts.tiling import each_block, split_row
from schedules.parts.toom_cook import matrices, outputs_from, values_at
from schedules.parts.weights import Block, full_and_rest
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import KernelTarget, Tile

TAPS = 3
OUTPUTS = ROWS, COLUMNS = 2, 4  # of a tile
POINTS = (ROWS + TAPS - 1) * (COLUMNS + TAPS - 1)
# What a band keeps at its points stays in a cache of the second level.
BAND_BYTES = 1 << 19

# What the transformations of a tile take for each channel, and each output channel, in products.
TRANSFORMATION = 128
BYTES_A_NS = 16  # of weights, which no near cache holds


def is_faster(conv: Convolution, target: KernelTarget) -> bool:
    """Whether this method takes less time than the direct kernel, reckoned from the products of both, at the
    rate of the processor, from the transformations, and from the weights, which are 24 here for 9."""
    if conv.kernel != (TAPS, TAPS) or (conv.strides, conv.dilation, conv.groups) != ((1, 1), (1, 1), 1):
        return False
    if target.winograd_tile(conv) is None:
        return False
    pairs = conv.channels * conv.out_channels
    tiles = conv.batch * -(-conv.out_height // ROWS) * -(-conv.out_width // COLUMNS)
    transformations = TRANSFORMATION * (conv.channels + conv.out_channels)

    def nanoseconds(products: int, weights: int) -> float:
        return products / target.float_rate + 4 * weights / BYTES_A_NS

    ours = nanoseconds(tiles * (POINTS * pairs + transformations), POINTS * pairs)
    return ours < nanoseconds(conv.macs, TAPS * TAPS * pairs)


def transform_weights(weights: np.ndarray, outputs: tuple[int, int] = OUTPUTS) -> np.ndarray:
    """float32 [O, 3, 3, C] -> [O, points, 1, C], rounded once; for `lay_out`."""
    down, along = (np.asarray(matrices(TAPS, count)[1], np.float64) for count in outputs)
    made = np.einsum("pk,okmc,qm->opqc", down, weights.astype(np.float64), along)
    return made.reshape(len(weights), -1, 1, weights.shape[-1]).astype(np.float32)


def default_band(conv: Convolution, lanes: int, outputs: tuple[int, int] = OUTPUTS) -> int:
    """Output rows of a band, in whole tiles. lanes: the output channels, in whole vectors."""
    rows, columns = outputs
    high, wide = -(-conv.out_height // rows), -(-conv.out_width // columns)
    points = (rows + TAPS - 1) * (columns + TAPS - 1)
    of_row = 4 * points * wide * (conv.channels + lanes)
    bands = -(-high // max(1, BAND_BYTES // of_row))
    return -(-high // bands) * rows


def winograd_inside(
    conv: Convolution,
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    outputs: tuple[int, int] = OUTPUTS,
    rows_of_band: int | None = None,
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 [N, H, W, C], weights as `lay_out` gives them from
    `transform_weights`, the epilogue's operands, and the outputs, none of them planar. For a convolution of
    3 x 3 taps without strides, dilation and groups.

    tile: as many pixels for each tile of outputs that is summed at a time as the latter is wide. outputs: of
    such a tile, rows and columns, as `transform_weights` had them. rows_of_band: output rows, in whole tiles,
    whose sums at a point follow each other, where that is not `default_band`.
    """
    plan = _Plan(conv=conv, tile=tile, target=target, outputs=outputs, rows_of_band=rows_of_band)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        shape = (conv.batch, conv.height, conv.width, conv.channels)
        images = T.arg("activations", T.buffer(shape, "float32"))
        weights = T.arg("weights", T.buffer((plan.lanes * plan.points * conv.channels,), "float32"))
        operands = operand_arguments(epilogue)
        written = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            writer = Writer(epilogue, written, operands, conv.out_shape[:3])
            writer.clear_halos()
            band = _Band(
                plan=plan,
                pixels=pad_in_kernel(images, plan.padded),
                weights=weights,
                writer=writer,
                values=T.alloc_buffer((plan.points * plan.tiles * conv.channels,), "float32"),
                products=T.alloc_buffer((plan.points * plan.tiles * plan.lanes,), "float32"),
            )
            with T.serial(0, conv.batch * plan.bands) as b:
                n = b // plan.bands
                # The last band begins where a whole one fits: some rows are computed twice.
                first = tirx.min(b % plan.bands * plan.band, plan.rows - plan.band)
                with T.parallel(0, plan.band) as r:
                    each(plan.columns, lambda t: band.transform(n, first + r, t, r * plan.columns + t))
                with T.parallel(0, plan.points) as p:
                    band.multiply(p)
                with T.parallel(0, plan.band) as r:
                    each(plan.columns, lambda t: band.write(n, first + r, t, r * plan.columns + t))
    return builder.get()


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Sizes of a kernel, all known when it is made."""

    conv: Convolution
    tile: Tile
    target: KernelTarget
    outputs: tuple[int, int]
    rows_of_band: int | None

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of what a tile reads."""
        rows, columns = self.outputs
        return rows + TAPS - 1, columns + TAPS - 1

    @property
    def points(self) -> int:
        down, along = self.reach
        return down * along

    @property
    def rows(self) -> int:
        """Of tiles, in an image."""
        return -(-self.conv.out_height // self.outputs[0])

    @property
    def columns(self) -> int:
        """Tiles of such a row."""
        return -(-self.conv.out_width // self.outputs[1])

    @property
    def padded(self) -> Convolution:
        """With a padding of which whole tiles can be read."""
        conv, (top, left, _, _) = self.conv, self.conv.padding
        bottom = self.height - conv.height - top
        right = self.width - conv.width - left
        return replace(conv, padding=(top, left, bottom, right))

    @property
    def height(self) -> int:
        """Of a padded image."""
        return self.rows * self.outputs[0] + TAPS - 1

    @property
    def width(self) -> int:
        """Of a padded row."""
        return self.columns * self.outputs[1] + TAPS - 1

    @property
    def band(self) -> int:
        """Rows of tiles in a band."""
        rows = self.rows_of_band or default_band(self.conv, self.lanes, self.outputs)
        return rows // self.outputs[0]

    @property
    def bands(self) -> int:
        return -(-self.rows // self.band)

    @property
    def tiles(self) -> int:
        """Of a band."""
        return self.band * self.columns

    @property
    def blocks(self) -> tuple[list[Block], list[Block]]:
        return full_and_rest(self.conv.out_channels, self.tile.lanes, self.tile.quantum)

    @property
    def lanes(self) -> int:
        """Of all blocks."""
        full, rest = self.blocks
        return sum(block.width for block in full + rest)


@dataclass(frozen=True, kw_only=True)
class _Band:
    plan: _Plan
    pixels: tirx.Buffer  # the padded images, flat
    weights: tirx.Buffer
    writer: Writer
    values: tirx.Buffer  # B^T x C: [plan.points, tiles, channels]
    products: tirx.Buffer  # the sums at the points: [plan.points, tiles, lanes]

    def transform(self, n: Any, y: Any, x: Any, t: Any) -> None:
        """The values of tile t of the band, which is that in row y and column x of image n."""
        plan, channels = self.plan, self.plan.conv.channels
        (rows_out, columns_out), (high, wide) = plan.outputs, plan.reach
        down, along = matrices(TAPS, rows_out)[2], matrices(TAPS, columns_out)[2]
        corner = ((n * plan.height + y * rows_out) * plan.width + x * columns_out) * channels

        def some(c: Any, lanes: int) -> None:
            rows = []
            for i in range(high):
                at = [corner + (i * plan.width + j) * channels + c for j in range(wide)]
                read = [T.Bind(load(self.pixels, a, lanes)) for a in at]
                rows.append([T.Bind(value) for value in values_at(along, read, lanes)])
            for j, column in enumerate(zip(*rows, strict=True)):
                for i, value in enumerate(values_at(down, list(column), lanes)):
                    point = i * wide + j
                    store(self.values, (point * plan.tiles + t) * channels + c, lanes, value)

        in_pieces(channels, plan.tile.quantum, some)

    def multiply(self, p: Any) -> None:
        """The sums at point p for all tiles."""
        each_block(*self.plan.blocks, lambda block, channel: self._multiply_block(p, block, channel))

    def _multiply_block(self, p: Any, block: Block, channel: Any) -> None:
        """channel: the first of the block."""
        plan, channels, width = self.plan, self.plan.conv.channels, block.width
        together = plan.tile.together or plan.target.together

        def group(first: Any, tiles: int) -> None:
            runs = Runs(
                activations=self.values,
                weights=self.weights,
                count=1,
                words=channels,
                starts=lambda _: [(p * plan.tiles + first + t) * channels for t in range(tiles)],
                offset=channel * plan.points * channels + p * channels * width,
            )
            sums = T.alloc_buffer((tiles * width,), "float32", scope="local")
            across(runs, sums, tiles, width, plan.tile, together)
            for t in range(tiles):
                at = (p * plan.tiles + first + t) * plan.lanes + channel
                store(self.products, at, width, load(sums, t * width, width))

        larger, most, smaller = split_row(plan.tiles, max(1, plan.tile.pixels // plan.outputs[1]))
        each(larger, lambda g: group(g * most, most))
        each(smaller, lambda g: group(larger * most + g * (most - 1), most - 1))

    def write(self, n: Any, y: Any, x: Any, t: Any) -> None:
        """The outputs of tile t."""
        each_block(*self.plan.blocks, lambda block, channel: self._write_block(n, y, x, t, block, channel))

    def _write_block(self, n: Any, y: Any, x: Any, t: Any, block: Block, channel: Any) -> None:
        plan, conv, width, lanes = self.plan, self.plan.conv, block.width, self.plan.tile.quantum
        (rows_out, columns_out), (high, wide) = plan.outputs, plan.reach
        down, along = matrices(TAPS, rows_out)[0], matrices(TAPS, columns_out)[0]
        # The epilogue reads them from memory, so that its loops need not be unrolled.
        settled = T.alloc_buffer((rows_out * columns_out * width,), "float32", scope="local")

        def of_vector(v: Any) -> None:
            rows = []
            for i in range(high):
                points = range(i * wide, (i + 1) * wide)
                at = [(p * plan.tiles + t) * plan.lanes + channel + v * lanes for p in points]
                read = [T.Bind(load(self.products, a, lanes)) for a in at]
                rows.append([T.Bind(value) for value in outputs_from(along, read, lanes)])
            for j, column in enumerate(zip(*rows, strict=True)):
                for i, value in enumerate(outputs_from(down, list(column), lanes)):
                    store(settled, (i * columns_out + j) * width + v * lanes, lanes, value)

        each(width // lanes, of_vector)
        with (
            T.serial(0, tirx.min(rows_out, conv.out_height - y * rows_out)) as i,
            T.serial(0, tirx.min(columns_out, conv.out_width - x * columns_out)) as j,
        ):

            def total(lane: Any, _: Any, extent: int) -> Any:
                return load(settled, (i * columns_out + j) * width + lane, extent)

            self.writer.write(n, y * rows_out + i, x * columns_out + j, channel, block.valid, total)
