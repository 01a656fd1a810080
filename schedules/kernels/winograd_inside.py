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
ROWS, COLUMNS = 2, 4  # of the outputs of a tile
DOWN, ALONG = ROWS + TAPS - 1, COLUMNS + TAPS - 1  # of what it reads
POINTS = DOWN * ALONG
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
    pairs = conv.channels * conv.out_channels
    tiles = conv.batch * -(-conv.out_height // ROWS) * -(-conv.out_width // COLUMNS)
    transformations = TRANSFORMATION * (conv.channels + conv.out_channels)

    def nanoseconds(products: int, weights: int) -> float:
        return products / target.float_rate + 4 * weights / BYTES_A_NS

    ours = nanoseconds(tiles * (POINTS * pairs + transformations), POINTS * pairs)
    return ours < nanoseconds(conv.macs, TAPS * TAPS * pairs)


def transform_weights(weights: np.ndarray) -> np.ndarray:
    """float32 [O, 3, 3, C] -> [O, POINTS, 1, C], rounded once; for `lay_out`."""
    down, along = (np.asarray(matrices(TAPS, count)[1], np.float64) for count in (ROWS, COLUMNS))
    made = np.einsum("pk,okmc,qm->opqc", down, weights.astype(np.float64), along)
    return made.reshape(len(weights), POINTS, 1, weights.shape[-1]).astype(np.float32)


def winograd_inside(conv: Convolution, tile: Tile, target: KernelTarget, epilogue: Epilogue) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 [N, H, W, C], weights as `lay_out` gives them from
    `transform_weights`, the epilogue's operands, and the outputs, none of them planar. For a convolution of
    3 x 3 taps without strides, dilation and groups.

    tile: of 4 pixels for each tile of outputs that is summed at a time.
    """
    plan = _Plan(conv=conv, tile=tile, target=target)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        shape = (conv.batch, conv.height, conv.width, conv.channels)
        images = T.arg("activations", T.buffer(shape, "float32"))
        weights = T.arg("weights", T.buffer((plan.lanes * POINTS * conv.channels,), "float32"))
        operands = operand_arguments(epilogue)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()
            band = _Band(
                plan=plan,
                pixels=pad_in_kernel(images, plan.padded),
                weights=weights,
                writer=writer,
                values=T.alloc_buffer((POINTS * plan.tiles * conv.channels,), "float32"),
                products=T.alloc_buffer((POINTS * plan.tiles * plan.lanes,), "float32"),
            )
            with T.serial(0, conv.batch * plan.bands) as b:
                n = b // plan.bands
                # The last band begins where a whole one fits: some rows are computed twice.
                first = tirx.min(b % plan.bands * plan.band, plan.rows - plan.band)
                with T.parallel(0, plan.band) as r:
                    each(plan.columns, lambda t: band.transform(n, first + r, t, r * plan.columns + t))
                with T.parallel(0, POINTS) as p:
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

    @property
    def rows(self) -> int:
        """Of tiles, in an image."""
        return -(-self.conv.out_height // ROWS)

    @property
    def columns(self) -> int:
        """Tiles of such a row."""
        return -(-self.conv.out_width // COLUMNS)

    @property
    def padded(self) -> Convolution:
        """With a padding of which whole tiles can be read."""
        conv, (top, left, _, _) = self.conv, self.conv.padding
        bottom = self.rows * ROWS + TAPS - 1 - conv.height - top
        right = self.columns * COLUMNS + TAPS - 1 - conv.width - left
        return replace(conv, padding=(top, left, bottom, right))

    @property
    def width(self) -> int:
        """Of a padded row."""
        return self.columns * COLUMNS + TAPS - 1

    @property
    def bands(self) -> int:
        of_row = 4 * POINTS * self.columns * (self.conv.channels + self.lanes)
        return -(-self.rows // max(1, BAND_BYTES // of_row))

    @property
    def band(self) -> int:
        """Rows of tiles in a band."""
        return -(-self.rows // self.bands)

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
    values: tirx.Buffer  # B^T x C: [POINTS, tiles, channels]
    products: tirx.Buffer  # the sums at the points: [POINTS, tiles, lanes]

    def transform(self, n: Any, y: Any, x: Any, t: Any) -> None:
        """The values of tile t of the band, which is that in row y and column x of image n."""
        plan, channels = self.plan, self.plan.conv.channels
        down, along = matrices(TAPS, ROWS)[2], matrices(TAPS, COLUMNS)[2]
        height = plan.rows * ROWS + TAPS - 1
        corner = ((n * height + y * ROWS) * plan.width + x * COLUMNS) * channels

        def some(c: Any, lanes: int) -> None:
            rows = []
            for i in range(DOWN):
                at = [corner + (i * plan.width + j) * channels + c for j in range(ALONG)]
                read = [T.Bind(load(self.pixels, a, lanes)) for a in at]
                rows.append([T.Bind(value) for value in values_at(along, read, lanes)])
            for j, column in enumerate(zip(*rows, strict=True)):
                for i, value in enumerate(values_at(down, list(column), lanes)):
                    point = i * ALONG + j
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
                offset=channel * POINTS * channels + p * channels * width,
            )
            sums = T.alloc_buffer((tiles * width,), "float32", scope="local")
            across(runs, sums, tiles, width, plan.tile, together)
            for t in range(tiles):
                at = (p * plan.tiles + first + t) * plan.lanes + channel
                store(self.products, at, width, load(sums, t * width, width))

        larger, most, smaller = split_row(plan.tiles, max(1, plan.tile.pixels // COLUMNS))
        each(larger, lambda g: group(g * most, most))
        each(smaller, lambda g: group(larger * most + g * (most - 1), most - 1))

    def write(self, n: Any, y: Any, x: Any, t: Any) -> None:
        """The outputs of tile t."""
        each_block(*self.plan.blocks, lambda block, channel: self._write_block(n, y, x, t, block, channel))

    def _write_block(self, n: Any, y: Any, x: Any, t: Any, block: Block, channel: Any) -> None:
        plan, conv, width, lanes = self.plan, self.plan.conv, block.width, self.plan.tile.quantum
        down, along = matrices(TAPS, ROWS)[0], matrices(TAPS, COLUMNS)[0]
        # The epilogue reads them from memory, so that its loops need not be unrolled.
        settled = T.alloc_buffer((ROWS * COLUMNS * width,), "float32", scope="local")

        def of_vector(v: Any) -> None:
            rows = []
            for i in range(DOWN):
                points = range(i * ALONG, (i + 1) * ALONG)
                at = [(p * plan.tiles + t) * plan.lanes + channel + v * lanes for p in points]
                read = [T.Bind(load(self.products, a, lanes)) for a in at]
                rows.append([T.Bind(value) for value in outputs_from(along, read, lanes)])
            for j, column in enumerate(zip(*rows, strict=True)):
                for i, value in enumerate(outputs_from(down, list(column), lanes)):
                    store(settled, (i * COLUMNS + j) * width + v * lanes, lanes, value)

        each(width // lanes, of_vector)
        with (
            T.serial(0, tirx.min(ROWS, conv.out_height - y * ROWS)) as i,
            T.serial(0, tirx.min(COLUMNS, conv.out_width - x * COLUMNS)) as j,
        ):

            def total(lane: Any, _: Any, extent: int) -> Any:
                return load(settled, (i * COLUMNS + j) * width + lane, extent)

            self.writer.write(n, y * ROWS + i, x * COLUMNS + j, channel, block.valid, total)
