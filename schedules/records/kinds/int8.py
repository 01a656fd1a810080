"""Convolutions of bytes in register tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm import tirx

from schedules.geometry import Convolution
from schedules.kernels.convolution import int8_convolution
from schedules.parts.bits import Packing
from schedules.parts.tiling import rows_together
from schedules.records import tile_space
from schedules.records.bare_epilogue import bare_epilogue
from schedules.records.kernel_task import KernelTask, said_of
from schedules.records.tile_space import orders, register_tiles
from schedules.targets.kernel_target import DotProduct, KernelTarget, Tile


@dataclass(frozen=True, kw_only=True)
class Int8Task(KernelTask[Tile]):
    """word: bits of the activations that the processor's `DotProduct` takes at a time, by which the products
    of a family are told apart; in_bits: the weights are stored in bits."""

    choice = Tile
    kinds = ("int8_convolution",)

    conv: Convolution
    packing: Packing
    word: int
    in_bits: bool = False

    @property
    def kind(self) -> str:
        return "int8_convolution"

    @property
    def title(self) -> str:
        return said_of("int8 of bits" if self.in_bits else "int8", self.conv, self.outputs)

    def default(self, target: KernelTarget) -> Tile:
        return self._dot(target).tile(self.conv)

    def _dot(self, target: KernelTarget) -> DotProduct:
        if target.dot.word != self.word:
            raise ValueError(f"the target multiplies words of {target.dot.word} bits, and not of {self.word}")
        return target.dot

    def refusal(self, tile: Tile) -> str | None:
        if (tile.depth, tile.together, tile.word, tile.unroll, tile.abreast) != (1, None, None, 1, None):
            return "how a kernel of bytes reads and adds up is the processor's, and not the tile's"
        if tile.quantum % 4:
            return "its lanes are not whole vectors"
        return tile_space.refusal(self.conv, self.outputs, tile)

    def candidates(self, target: KernelTarget) -> list[Tile]:
        conv, dot, default = self.conv, self._dot(target), self.default(target)
        found = [replace(default, rows=default.rows or rows_together(conv, default.pixels))]
        of_sum = max(1, 32 * dot.lanes // target.vector_bits)
        for tile in register_tiles(conv, dot.lanes, target.registers, of_sum=of_sum):
            order = (False,) if self.in_bits else orders(conv, tile.lanes)
            found += [replace(tile, together=None, blocks_outside=outside) for outside in order]
        return [tile for tile in dict.fromkeys(found) if self.refusal(tile) is None]

    def bare_kernel(self, tile: Tile, target: KernelTarget) -> tirx.PrimFunc:
        self._dot(target)
        epilogue = bare_epilogue(self.outputs, self.conv.out_shape, "int32")
        return int8_convolution(self.conv, self.packing, tile, target, epilogue, in_bits=self.in_bits)
