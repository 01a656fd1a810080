"""What a kernel has to know of a processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schedules.geometry import Convolution, counts_in_16_bits, dtype_of_counts


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a tuning may choose of a kernel: whole numbers and truths, which a record holds by these names."""


@dataclass(frozen=True, kw_only=True)
class Tile(Choice):
    """At most pixels x lanes outputs are computed at a time."""

    pixels: int  # neighbours of an output row, or as many of each of `rows`
    lanes: int  # output channels
    quantum: int  # lanes come in whole vectors of so many; with a depth, outputs that share what was read
    # Where it is not 1, a vector holds so many words of one output and not one of so many outputs; its sums
    # are added up at the end.
    depth: int = 1
    # The rest is for tuning (schedules/records/kinds/); None is what kernel and target do by themselves.
    rows: int | None = None  # over how many output rows a tile lies, a divisor of their number
    together: int | None = None  # activations of a pixel that are read at a time
    # Bits of a lane, which is the form of its sums: 8 are added as bytes and widened at times, 16 and 32 are
    # wide at once; 4 are looked up and added as bytes, where the target has `look_up`.
    word: int | None = None
    unroll: int = 1  # steps of the inner loop that are written out
    # Vectors of weights (of `quantum` lanes, or one of each output) whose operations stand side by side, for
    # all pixels: all of one kind, then all of the next. None leaves their order to LLVM.
    abreast: int | None = None
    # All rows of one block of channels before the next block, else all blocks of one row; it is also what
    # threads share out.
    blocks_outside: bool = False


@dataclass(frozen=True, kw_only=True)
class Lanes(Choice):
    """Of a kernel that goes through neighbours in memory."""

    lanes: int  # that are computed at a time
    # Vectors of so many, one after the other, so that none waits for the one before; where a kernel has them.
    together: int = 1


@dataclass(frozen=True, kw_only=True)
class DotProduct:
    """How a processor multiplies 8-bit integers and adds them up in 32 bits."""

    word: int  # bits of activations that are broadcast at a time
    zero_point: int = 0  # what activations are stored with, see schedules/parts/quantizer.py
    lanes: int  # sums of one instruction
    together: int = 1  # as of `KernelTarget`
    at_once: int = 1  # words of a pixel that `add` takes; fewer at the end of a run
    tile: Callable[[Convolution], Tile]  # for a layer of this geometry
    # (sums, activations, weights) -> sums: vectors of `lanes`, int32 and words, a vector for each at once.
    add: Callable[[Any, list[Any], list[Any]], Any]


@dataclass(frozen=True, kw_only=True)
class KernelTarget:
    """The kernels of a family of processors."""

    name: str
    word: int  # bits of an activation that are broadcast at a time, and of a lane as well: 8, 16 or 32
    # Activations of a pixel that are read at a time, to be broadcast from a register; 1 where a broadcast
    # from memory is as good.
    together: int = 1
    # The tile for a layer of this geometry, where no record of a tuning has a better one.
    binary_tile: Callable[[Convolution], Tile]
    float_tile: Callable[[Convolution], Tile]
    winograd_tile: Callable[[Convolution], Tile | None]  # None where the direct kernel is faster
    # The tile for a layer of constant weights whose bits are looked up (schedules/parts/tables.py), None
    # where that is not faster; and how: (a table of 16 bytes, twice; indices in it) -> bytes, all uint8x32.
    table_tile: Callable[[Convolution], Tile | None] = lambda conv: None
    look_up: Callable[[Any, Any], Any] | None = None
    dot: DotProduct  # for int8 layers
    # The tile for a float layer that is computed in float16; None without arithmetic for it.
    half_tile: Callable[[Convolution], Tile] | None = None
    # How an image that lies plane by plane is packed: so many pixels of a plane at a time, None for the usual
    # number; and in words of so many bits, where comparisons give lanes wider than words of activations.
    plane_lanes: Lanes | None = None
    plane_word: int = 8
    # Whether kernels of the same sums of bits share their code, at the price of a call for each tile.
    sums_apart: bool = False
    # Operations of one kind that a tile may have side by side; 0 where no tile does.
    side_by_side: int = 0
    vector_bits: int = 128  # of a vector register
    registers: int = 16  # of vectors
    # Products a nanosecond that one thread of a usual processor of the family computes.
    binary_rate: float = 60
    float_rate: float = 6
    byte_rate: float = 10  # bytes a nanosecond that it reads and writes, most of them in the second cache
    # Until a second thread works on its share; a guess, where records of tuning have not measured it.
    wake_ns: float = 6_000

    def tile_for_bits(self, conv: Convolution) -> Tile:
        """Of a layer of constant weights, which can be prepared for tables."""
        return self.table_tile(conv) or self.binary_tile(conv)

    @property
    def floats(self) -> int:
        """Numbers of 32 bits in a vector register."""
        return self.vector_bits // 32

    def word_for(self, conv: Convolution) -> int:
        """Few channels in a group leave most of a wide word empty, and a lane has to hold the count."""
        if conv.channels // conv.groups <= 8:
            return 8
        return 32 if self.word == 16 and not counts_in_16_bits(conv.products) else self.word

    def sum_dtype(self, word: int, products: int) -> str:
        """Wide enough for a count of all products."""
        return dtype_of_counts(products) if word < 32 else "uint32"


def lanes_for(out_channels: int, most: int, quantum: int) -> int:
    return min(most, -(-out_channels // quantum) * quantum)
