"""How the outputs of a layer are cut into tiles, in which order these are computed, and what of them threads
share out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.emit import each
from schedules.parts.planes import band_of_rows
from schedules.parts.weights import Block, full_and_rest
from schedules.targets.kernel_target import Tile


def rows_together(conv: Convolution, pixels: int) -> int:
    """2 where tiles of two half rows fit an image that whole tiles of one row do not, else 1."""
    halves = pixels % 2 == 0 and conv.out_height % 2 == 0 and conv.out_width % (pixels // 2) == 0
    return 2 if halves and conv.out_width % pixels else 1


def split_row(width: int, most: int) -> tuple[int, int, int]:
    """A row in the fewest tiles of at most `most` pixels, nearly alike, as a narrow rest wastes registers:
    `larger` of them of `pixels`, then `smaller` of one less. Returns (larger, pixels, smaller)."""
    count = -(-width // most)
    pixels = -(-width // count)
    larger = width - count * (pixels - 1)
    return larger, pixels, count - larger


def each_block(full: list[Block], rest: list[Block], body: Callable[[Block, Any], None]) -> None:
    """body(block, channel) for the blocks of a group as `full_and_rest` has them; channel: the first."""
    each(len(full), lambda b: body(full[0], b * full[0].width))
    for block in rest:
        body(block, block.start)


class Kept(Protocol):
    """What of a band is kept until its last tile is done."""

    def write(self) -> None: ...


Keep = Callable[[Any, Any, int, Any, Block], Kept]
"""keep(n, top, rows, channel, block): for so many rows from `top` on of image n, and the channels of a block
from this one on."""

Begin = Callable[[Any, int], None]
"""begin(lane, width): before the tiles of a block of `width` lanes, of which this is the first."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tile lies: `rows` x `columns` outputs from (y, x) of image n on, times the lanes of a block."""

    n: Any
    y: Any
    x: Any
    rows: int
    columns: int
    group: Any
    block: Block
    channel: Any  # the block's first output channel
    weights: Any  # where those of the block begin

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    def pixel(self, m: Any) -> tuple[Any, Any]:
        """Row and column of the outputs of pixel m."""
        return self.y + m // self.columns, self.x + m % self.columns


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The tiles of a layer; the methods `by_...` emit the loops over all of them."""

    conv: Convolution
    tile: Tile
    products: int  # words of weights for each lane
    weights_per_row: bool  # each row of each image has weights of its own

    @property
    def rows(self) -> int:
        """Over how many output rows a tile lies."""
        return 1 if self.weights_per_row else self.tile.rows or rows_together(self.conv, self.tile.pixels)

    @property
    def blocks(self) -> tuple[list[Block], list[Block]]:
        """Of a group: the full ones, which are alike, and the rest."""
        return full_and_rest(self.out_group, self.tile.lanes, self.tile.quantum)

    @property
    def out_group(self) -> int:
        """Output channels of a group."""
        return self.conv.out_channels // self.conv.groups

    @property
    def lanes_per_group(self) -> int:
        full, rest = self.blocks
        return sum(block.width for block in full + rest)

    @property
    def set_size(self) -> int:
        """Words of the weights of all channels."""
        return self.conv.groups * self.lanes_per_group * self.products

    @property
    def weights(self) -> int:
        """Words of all weights."""
        return self.set_size * (self.conv.batch * self.conv.height if self.weights_per_row else 1)

    def by_rows(self, compute: Callable[[Place], None]) -> None:
        """All blocks of some rows before the next rows, which threads share out."""
        bands = self.conv.out_height // self.rows
        full, rest = self.blocks

        def of_rows(n: Any, y: Any) -> None:
            def of_group(group: Any) -> None:
                if full:
                    each(len(full), lambda b: self._rows_of_block(compute, n, y, group, full[0], b))
                for block in rest:
                    self._rows_of_block(compute, n, y, group, block, 0)

            each(self.conv.groups, of_group)

        with T.parallel(0, self.conv.batch * bands) as r:
            of_rows(r // bands, r % bands * self.rows)

    def by_blocks(self, compute: Callable[[Place], None], begin: Begin) -> None:
        """All rows of a block before the next block; threads share out the blocks."""
        bands = self.conv.out_height // self.rows
        full, rest = self.blocks

        def all_rows(group: Any, block: Block, index: Any) -> None:
            def of_rows(r: Any) -> None:
                self._rows_of_block(compute, r // bands, r % bands * self.rows, group, block, index)

            begin(self._lane(group, block, index), block.width)
            each(self.conv.batch * bands, of_rows)

        if full:
            with T.parallel(0, self.conv.groups * len(full)) as b:
                all_rows(b // len(full), full[0], b % len(full))
        for block in rest:
            with T.parallel(0, self.conv.groups) as group:
                all_rows(group, block, 0)

    @property
    def band(self) -> int:
        """Rows of an image that are kept together until they are done."""
        rows = self.rows
        return band_of_rows(self.conv.out_height // rows, self.conv.out_width * rows) * rows

    def by_bands(self, tall: int, compute: Callable[[Place], None], keep: Keep, begin: Begin) -> None:
        """Bands of `tall` rows that are kept, each of one block, and written when they are done. Threads
        share out the bands of all blocks alike."""
        full, rest = self.blocks
        for block, count in [*((block, len(full)) for block in full[:1]), *((block, 1) for block in rest)]:
            self._bands_of(block, count, tall, compute, keep, begin)

    def _bands_of(
        self,
        block: Block,
        count: int,
        tall: int,
        compute: Callable[[Place], None],
        keep: Keep,
        begin: Begin,
    ) -> None:
        """Of `count` blocks alike of each group."""
        conv, rows = self.conv, self.rows
        bands = conv.out_height // tall
        with T.parallel(0, conv.batch * bands * conv.groups * count) as r:
            n, band = r // (bands * conv.groups * count), r // (conv.groups * count) % bands
            group, index = r // count % conv.groups, r % count
            top = band * tall
            begin(self._lane(group, block, index), block.width)
            kept = keep(n, top, tall, self._channel(group, block, index), block)
            each(
                tall // rows,
                lambda y: self._rows_of_block(compute, n, top + y * rows, group, block, index),
            )
            kept.write()

    def _rows_of_block(
        self, compute: Callable[[Place], None], n: Any, y: Any, group: Any, block: Block, index: Any
    ) -> None:
        """All tiles of output row y, or of `rows` of them, for one block, number `index` of those alike."""
        weights = self._lane(group, block, index) * self.products
        if self.weights_per_row:
            weights += (n * self.conv.out_height + y) * self.set_size
        larger, columns, smaller = split_row(self.conv.out_width, self.tile.pixels // self.rows)

        def tiles(count: int, columns: int, first: int) -> None:
            def one(t: Any) -> None:
                place = Place(
                    n=n,
                    y=y,
                    x=first + t * columns,
                    rows=self.rows,
                    columns=columns,
                    group=group,
                    block=block,
                    channel=self._channel(group, block, index),
                    weights=weights,
                )
                compute(place)

            each(count, one)

        tiles(larger, columns, 0)
        tiles(smaller, columns - 1, larger * columns)

    def _lane(self, group: Any, block: Block, index: Any) -> Any:
        return group * self.lanes_per_group + block.start + index * self.tile.lanes

    def _channel(self, group: Any, block: Block, index: Any) -> Any:
        return group * self.out_group + block.start + index * self.tile.lanes
