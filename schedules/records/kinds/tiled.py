"""Convolutions of bits and of floats in register tiles, and dense layers, which are their 1x1 case."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from tvm import tirx

from schedules.geometry import Convolution, counts_in_16_bits
from schedules.kernels.convolution import binary_convolution, float_convolution
from schedules.parts.bits import Packing
from schedules.parts.borders import Ending
from schedules.parts.tables import LANES
from schedules.parts.tables import WORD as LOOKED_UP
from schedules.parts.tiling import rows_together
from schedules.records import tile_space
from schedules.records.bare_epilogue import bare_epilogue
from schedules.records.kernel_task import KernelTask, Work, said_of
from schedules.records.tile_space import abreast, orders, read_together, register_tiles
from schedules.targets.few_channels import tile_of_few_channels
from schedules.targets.kernel_target import KernelTarget, Tile

_UNROLLS = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class TiledTask(KernelTask[Tile]):
    choice = Tile
    kinds = ("binary_convolution", "float_convolution")

    conv: Convolution
    packing: Packing | None = None  # of the activations, None where they are float
    ending: Ending = "dot"  # what the epilogue gets for a sum
    planar: bool = False  # the activations are [N, C, H, W]
    in_bits: bool = False  # the weights of a layer of floats are stored in bits

    @property
    def kind(self) -> str:
        return "binary_convolution" if self.packing else "float_convolution"

    @property
    def work(self) -> Work:
        return "popcounts" if self.packing else "multiplications"

    @property
    def exact(self) -> bool:
        return self.packing is not None

    @property
    def title(self) -> str:
        what = "float" if self.packing is None else "binary"
        bits = " of bits" if self.in_bits else ""
        return said_of(what + bits, self.conv, self.outputs)

    def _fields(self) -> dict[str, Any]:
        """Records are older than weights in bits."""
        fields = super()._fields()
        return fields if fields.pop("in_bits") is False else {**fields, "in_bits": True}

    def default(self, target: KernelTarget) -> Tile:
        if self.packing:
            return target.tile_for_bits(self.conv)
        few = None if self.planar or self.in_bits else tile_of_few_channels(self.conv, target)
        return few or target.float_tile(self.conv)

    def refusal(self, tile: Tile) -> str | None:
        return tile_space.refusal(self.conv, self.outputs, tile) or self._refusal_of_word(tile)

    def _refusal_of_word(self, tile: Tile) -> str | None:
        conv = self.conv
        if tile.word is not None:
            if self.packing is None:
                return "floats are not packed in words"
            bits = self.packing.words_per_group * self.packing.word
            if tile.word not in (LOOKED_UP, 8, 16, 32) or bits % tile.word:
                return f"its activations cannot be read in words of {tile.word} bits"
        word = tile.word or (self.packing.word if self.packing else 0)
        if tile.abreast is not None and word in (0, LOOKED_UP):
            return "only operations that count bits stand side by side"
        if word == LOOKED_UP and tile.quantum % LANES:
            return f"{LANES} channels are looked up together"
        if tile.depth > 1:
            if self.packing and word < 16:
                return "only words of 16 bits and more are added up along the channels"
            if self.planar or self.in_bits:
                return "neither planes nor weights in bits are added up along the channels"
            of_pixel = conv.channels // conv.groups
            if self.packing:
                of_pixel = self.packing.words_per_group * self.packing.word // word
            run = conv.taps_in_a_run * of_pixel
            if tile.depth & (tile.depth - 1) or run % tile.depth:
                return f"a depth of {tile.depth} words does not divide a run of {run}"
        if word == 16 and not counts_in_16_bits(conv.products):
            return f"lanes of 16 bits cannot count {conv.products} products"
        return None

    def candidates(self, target: KernelTarget) -> list[Tile]:
        found = dict.fromkeys([self._settled(self.default(target), target)])
        words: tuple[int | None, ...] = (None,)
        if self.packing:
            most = max(target.word, self.packing.word)
            words = tuple(w for w in (8, 16, 32) if w <= most)
            words = (LOOKED_UP, *words) if target.look_up else words
        for word in words:
            for tile in self._of_word(target, word):
                if self.refusal(tile) is None:
                    found.setdefault(self._settled(tile, target))
        return list(found)

    def _of_word(self, target: KernelTarget, word: int | None) -> list[Tile]:
        quantum = target.vector_bits // max(word or 32, 8)
        together = read_together(target, word) if word else (1,)
        tiles = self._along(target, word) if word and word > 8 else []
        if not self.packing and (few := tile_of_few_channels(self.conv, target)):
            most = min(few.pixels + 1, self.conv.out_height * self.conv.out_width)
            tiles += [replace(few, pixels=pixels) for pixels in range(1, most + 1)]
        for tile in register_tiles(self.conv, quantum, target.registers, together=together):
            # Weights in bits are decoded for a block, and so all its rows follow each other.
            order = (False,) if self.in_bits else orders(self.conv, tile.lanes)
            beside = abreast(target, tile.pixels, tile.lanes // quantum) if word and word > 4 else (None,)
            tiles += [
                replace(tile, word=word, unroll=u, blocks_outside=o, abreast=a)
                for u, o, a in product(_UNROLLS, order, beside)
            ]
        return tiles

    def _along(self, target: KernelTarget, word: int) -> list[Tile]:
        """Tiles that sum along the channels, a whole vector of words at a time."""
        conv, group = self.conv, self.conv.out_channels // self.conv.groups
        depth = target.vector_bits // word
        tiles = []
        for pixels, quantum, lanes in product(range(1, 9), (2, 4, 8), (16, 32, 64)):
            held = pixels * quantum + pixels + 1
            if lanes - quantum >= group or not target.registers // 4 <= held <= target.registers + 2:
                continue
            rows = [r for r in (1, 2) if not (conv.out_height % r or pixels % r)]
            tile = Tile(pixels=pixels, lanes=lanes, quantum=quantum, depth=depth, word=word)
            tiles += [
                replace(tile, rows=r, unroll=u, blocks_outside=o, abreast=a)
                for r, u, o, a in product(
                    rows, (1, 2, 3, 4, 6, 12), orders(conv, lanes), abreast(target, pixels, quantum)
                )
            ]
        return tiles

    def _settled(self, tile: Tile, target: KernelTarget) -> Tile:
        """The same kernel with nothing left to the target."""
        return replace(
            tile,
            rows=tile.rows or rows_together(self.conv, tile.pixels),
            together=tile.together or target.together,
            word=tile.word or (self.packing.word if self.packing else None),
        )

    def bare_kernel(self, tile: Tile, target: KernelTarget) -> tirx.PrimFunc:
        conv = self.conv
        if self.packing:
            sums = "bool" if self.ending == "truth" else "int32"
            epilogue = bare_epilogue(self.outputs, conv.out_shape, sums)
            return binary_convolution(conv, self.packing, tile, target, epilogue, ending=self.ending)
        shape = (conv.batch, conv.height, conv.width, conv.channels)
        if self.planar:
            shape = (conv.batch, conv.channels, conv.height, conv.width)
        epilogue = bare_epilogue(self.outputs, conv.out_shape, "float32")
        return float_convolution(
            conv, shape, tile, target, epilogue, planar=self.planar, in_bits=self.in_bits
        )
