"""What a kernel has to know of a processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schedules.geometry import Convolution


@dataclass(frozen=True)
class Tile:
    """At most pixels x lanes outputs are computed at a time; lanes come in whole vectors of `quantum`.

    depth: where it is not 1, a vector holds so many words of one output and not one of so many outputs;
    its sums are added up at the end, and `quantum` outputs share the activations that were read.

    The rest is for tuning (schedules/records/space.py); None is what kernel and target do by themselves.

    rows: over how many output rows a tile lies, a divisor of their number. together: how many activations of
    a pixel are read at a time. word: bits of a lane, which is the form of its sums: 8 are added as bytes and
    widened at times, 16 and 32 are wide at once. unroll: steps of the inner loop that are written out.
    blocks_outside: all rows of one block of channels before the next block, else all blocks of one row; it is
    also what threads share out.
    """

    pixels: int
    lanes: int
    quantum: int
    depth: int = 1
    rows: int | None = None
    together: int | None = None
    word: int | None = None
    unroll: int = 1
    blocks_outside: bool = False


@dataclass(frozen=True)
class DotProduct:
    """How a processor multiplies 8-bit integers and adds them up in 32 bits.

    word: bits of activations that are broadcast at a time; zero_point: what they are stored with, see
    schedules/parts/quantizer.py; lanes: sums of one instruction; together: as of `KernelTarget`; tile: for a
    layer of this geometry.
    add(sums, activations, weights) -> sums: vectors of `lanes`, int32 and words; of the words there are
    `at_once`, or fewer at the end of a run.
    """

    word: int
    zero_point: int
    lanes: int
    together: int
    at_once: int
    tile: Callable[[Convolution], Tile]
    add: Callable[[Any, list[Any], list[Any]], Any]


@dataclass(frozen=True)
class KernelTarget:
    """word: bits of an activation that are broadcast at a time, and the width of a lane as well: 8, 16 or 32.
    together: how many activations of a pixel are read at a time, to be broadcast from a register; 1 where a
    broadcast from memory is as good. binary_tile, float_tile: the tile for a layer of this geometry, where
    no record of a tuning has a better one; winograd_tile: the same for winograd.py, or None where the
    direct kernel is faster. dot: for int8 layers. vector_bits, registers: of the vector registers."""

    name: str
    word: int
    together: int
    binary_tile: Callable[[Convolution], Tile]
    float_tile: Callable[[Convolution], Tile]
    winograd_tile: Callable[[Convolution], Tile | None]
    dot: DotProduct
    vector_bits: int = 128
    registers: int = 16

    @property
    def floats(self) -> int:
        """Numbers of 32 bits in a vector register."""
        return self.vector_bits // 32

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
