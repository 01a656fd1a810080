"""What a kernel has to know of a processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schedules.geometry import Convolution


@dataclass(frozen=True)
class Tile:
    """At most pixels x lanes outputs are computed at a time; lanes come in whole vectors of `quantum`."""

    pixels: int
    lanes: int
    quantum: int


@dataclass(frozen=True)
class KernelTarget:
    """word: bits of an activation that are broadcast at a time, and the width of a lane as well: 8, 16 or 32.
    together: how many activations of a pixel are read at a time, to be broadcast from a register; 1 where a
    broadcast from memory is as good. binary_tile, float_tile: the tile for a layer of this geometry;
    winograd_tile: the same for winograd.py."""

    name: str
    word: int
    together: int
    binary_tile: Callable[[Convolution], Tile]
    float_tile: Callable[[Convolution], Tile]
    winograd_tile: Callable[[Convolution], Tile]

    def word_for(self, conv: Convolution) -> int:
        """Few channels in a group leave most of a wide word empty; a lane of 16 bits counts up to 65535."""
        if conv.channels // conv.groups <= 8:
            return 8
        return 32 if self.word == 16 and conv.products > 65535 else self.word

    def sum_dtype(self, word: int, products: int) -> str:
        """Wide enough for a count of all products."""
        return "uint16" if word < 32 and products <= 65535 else "uint32"


def lanes_for(out_channels: int, most: int, quantum: int) -> int:
    return min(most, -(-out_channels // quantum) * quantum)
