"""Products of two binary activations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from tvm import tirx

from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution
from schedules.parts.bits import Packing
from schedules.parts.tables import LANES
from schedules.parts.tables import WORD as LOOKED_UP
from schedules.records import tile_space
from schedules.records.bare_epilogue import bare_epilogue
from schedules.records.kernel_task import KernelTask, Work, said_of_outputs
from schedules.records.tile_space import read_together, register_tiles
from schedules.targets.kernel_target import KernelTarget, Tile

_UNROLLS = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class ProductTask(KernelTask[Tile]):
    """conv, packing: as of `BinaryProduct`."""

    choice = Tile
    kinds = ("binary_product",)

    conv: Convolution
    packing: Packing

    @property
    def kind(self) -> str:
        return "binary_product"

    @property
    def work(self) -> Work:
        return "popcounts"

    @property
    def title(self) -> str:
        conv, count = self.conv, self.conv.batch * self.conv.height
        sizes = f"{conv.width}x{conv.channels} by {conv.channels}x{conv.out_channels}"
        return f"{count} binary products, {sizes}, {said_of_outputs(self.outputs)}"

    def default(self, target: KernelTarget) -> Tile:
        # All blocks alike, so that one permutation lays them out.
        looked_up = target.table_tile(self.conv) if self._has_fours else None
        tile = looked_up or target.binary_tile(self.conv)
        word = LOOKED_UP if looked_up else None  # else that of the packing
        return Tile(pixels=tile.pixels, lanes=tile.lanes, quantum=tile.lanes, word=word)

    def refusal(self, tile: Tile) -> str | None:
        if tile.quantum != tile.lanes:
            return "its blocks are not alike, as the second activations are laid out"
        looked_up = tile.word == LOOKED_UP and self._has_fours
        if looked_up and tile.lanes % LANES:
            return f"{LANES} channels are looked up together"
        left = (tile.depth, tile.rows, tile.blocks_outside, tile.abreast)
        if left != (1, None, False, None) or tile.word and not looked_up:
            return "each row of a product has weights of its own, in the words in which they are packed"
        return tile_space.refusal(self.conv, self.outputs, tile)

    def candidates(self, target: KernelTarget) -> list[Tile]:
        """None that fills up the second activations with more than the default does, which costs time before
        the kernel."""
        default = self.default(target)
        most = self._filled(default)
        found = [replace(default, together=target.together)]
        together = read_together(target, self.packing.word)
        quantum = target.vector_bits // self.packing.word
        row = replace(self.conv, batch=1, height=1)
        for tile in register_tiles(row, quantum, target.registers, together=together, rows=(1,)):
            if self._filled(tile) <= most:
                alike = replace(tile, quantum=tile.lanes, rows=None)
                words = (None, LOOKED_UP) if target.look_up and self._has_fours else (None,)
                found += [replace(alike, unroll=u, word=w) for u, w in product(_UNROLLS, words)]
        return [tile for tile in dict.fromkeys(found) if self.refusal(tile) is None]

    @property
    def _has_fours(self) -> bool:
        """Whether the words of the second activations can be taken apart for look-ups."""
        return self.packing.word == 2 * LOOKED_UP

    def _filled(self, tile: Tile) -> int:
        return -(-self.conv.out_channels // tile.lanes) * tile.lanes

    def bare_kernel(self, tile: Tile, target: KernelTarget) -> tirx.PrimFunc:
        epilogue = bare_epilogue(self.outputs, self.conv.out_shape, "int32")
        return binary_convolution(
            self.conv, self.packing, tile, target, epilogue, ending="dot", weights_per_row=True
        )
