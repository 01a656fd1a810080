"""Tiles that kernels in register tiles can have (schedules/kernels/tiled.py), whatever their numbers are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from schedules.geometry import Convolution
from schedules.records.kernel_task import Written
from schedules.targets.kernel_target import KernelTarget, Tile

_MOST_VECTORS = 64  # of sums in one tile, beyond which only the compiler's patience is tried
_VECTORS = (1, 2, 4, 8, 16)  # of lanes; LLVM takes other numbers apart into single lanes


def refusal(conv: Convolution, outputs: Written, tile: Tile) -> str | None:
    """Why no kernel of this layer can have this tile, in words."""
    if min(tile.pixels, tile.lanes, tile.quantum, tile.depth, tile.unroll) < 1 or tile.lanes % tile.quantum:
        return "its lanes are not whole vectors"
    if tile.pixels * tile.lanes > _MOST_VECTORS * 64 or tile.unroll > 16:
        return "it is larger than any processor could hold"
    if tile.abreast is not None and (tile.abreast < 1 or tile.abreast & (tile.abreast - 1)):
        return f"{tile.abreast} vectors of weights are no power of two"
    if tile.rows is not None and (tile.rows < 1 or conv.out_height % tile.rows or tile.pixels % tile.rows):
        return f"{tile.rows} rows divide neither its pixels nor an image of {conv.out_height} rows evenly"
    if tile.together is not None and tile.together not in (1, 2, 4, 8, 16):
        return f"{tile.together} activations cannot be read at a time"
    group = conv.out_channels // conv.groups
    return unfilled(outputs, tile.lanes) if group > tile.lanes else None


def unfilled(outputs: Written, lanes: int) -> str | None:
    """Why blocks of so many lanes cannot begin at words of what is written; None where they do."""
    for _, packing in outputs:
        if packing and lanes % packing.per_word:
            return f"{lanes} lanes do not fill the words of {packing.word} bits that it writes"
    return None


def register_tiles(
    conv: Convolution,
    quantum: int,
    registers: int,
    *,
    together: Sequence[int] = (1,),
    rows: Sequence[int] = (1, 2, 4, 7),
    of_sum: int = 1,
) -> Iterator[Tile]:
    """Those that fill most of the registers and not much more. of_sum: registers of `quantum` sums."""
    group = conv.out_channels // conv.groups
    for pixels, vectors in product(range(1, 17), _VECTORS):
        lanes = vectors * quantum
        if lanes - quantum >= group or pixels > conv.out_width * conv.out_height:
            continue
        for tall, at_once in product(rows, together):
            if conv.out_height % tall or pixels % tall or pixels // tall > conv.out_width:
                continue
            held = pixels * vectors * of_sum + vectors + (pixels if at_once > 1 else 1)
            if registers // 4 <= held <= registers + 2:
                yield Tile(pixels=pixels, lanes=lanes, quantum=quantum, rows=tall, together=at_once)


def read_together(target: KernelTarget, word: int) -> tuple[int, ...]:
    """How many activations of a pixel may be read at a time: a broadcast from memory is as good where the
    target reads one; else it is from a register, of 16 bytes at most."""
    return (1,) if target.together == 1 else tuple(n for n in (1, 4, 8, 16) if n * word <= 128)


def abreast(target: KernelTarget, pixels: int, vectors: int) -> tuple[int | None, ...]:
    """Of `abreast`: as many operations side by side as the target has, if there are more in a step."""
    beside = 1 << max(1, target.side_by_side // pixels).bit_length() - 1
    return (None, beside) if target.side_by_side and vectors > beside else (None,)


def orders(conv: Convolution, lanes: int) -> tuple[bool, ...]:
    """Of `blocks_outside`: of one block of channels there is but one order."""
    return (False, True) if conv.out_channels // conv.groups > lanes else (False,)
