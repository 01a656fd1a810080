"""The tiles that a kernel can have on a processor: which are right, and which are worth a trial."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from schedules.geometry import counts_in_16_bits
from schedules.parts.parity import WORD as PAIRED
from schedules.parts.tiling import rows_together
from schedules.records.kernel_task import KernelTask
from schedules.targets.kernel_target import KernelTarget, Tile

_MOST_VECTORS = 64  # of sums in one tile, beyond which only the compiler's patience is tried
_UNROLLS = (1, 2, 3, 4)
_VECTORS = (1, 2, 4, 8, 16)  # of lanes; LLVM takes other numbers apart into single lanes


def refusal(task: KernelTask, tile: Tile) -> str | None:
    """Why a kernel of this task cannot have this tile, in words; None where it can."""
    conv, group = task.conv, task.conv.out_channels // task.conv.groups
    if min(tile.pixels, tile.lanes, tile.quantum, tile.depth, tile.unroll) < 1 or tile.lanes % tile.quantum:
        return "its lanes are not whole vectors"
    if tile.pixels * tile.lanes > _MOST_VECTORS * 64 or tile.unroll > 16:
        return "it is larger than any processor could hold"
    if tile.rows is not None and (tile.rows < 1 or conv.out_height % tile.rows or tile.pixels % tile.rows):
        return f"{tile.rows} rows divide neither its pixels nor an image of {conv.out_height} rows evenly"
    if tile.together is not None and tile.together not in (1, 2, 4, 8, 16):
        return f"{tile.together} activations cannot be read at a time"
    if tile.word is not None:
        if task.packing is None:
            return "floats are not packed in words"
        if tile.word not in (8, 16, 32) or task.packing.words_per_group * task.packing.word % tile.word:
            return f"its activations cannot be read in words of {tile.word} bits"
    word = tile.word or (task.packing.word if task.packing else 0)
    if tile.depth > 1:
        if word < 16:
            return "only words of 16 bits and more are added up along the channels"
        assert task.packing is not None
        run = conv.taps_in_a_run * task.packing.words_per_group * task.packing.word // word
        if tile.depth & (tile.depth - 1) or run % tile.depth:
            return f"a depth of {tile.depth} words does not divide a run of {run}"
    if word == 16 and not counts_in_16_bits(conv.products):
        return f"lanes of 16 bits cannot count {conv.products} products"
    for _, packing in task.outputs:
        if packing and group > tile.lanes and tile.lanes % packing.per_word:
            return f"{tile.lanes} lanes do not fill the words of {packing.word} bits that it writes"
    return None


def candidates(task: KernelTask, target: KernelTarget, default: Tile) -> list[Tile]:
    """The default first, in full, then every tile worth a trial: each kernel once, always in one order."""
    found = dict.fromkeys([_settled(task, target, default)])
    words: tuple[int | None, ...] = (None,)
    if task.packing:
        most = PAIRED if target.add_bytes else max(target.word, task.packing.word)
        words = tuple(w for w in (8, 16, 32) if w <= most and not (target.add_bytes and w == 16))
    for word in words:
        for tile in _of_word(task, target, word):
            if refusal(task, tile) is None:
                found.setdefault(_settled(task, target, tile))
    return list(found)


def _of_word(task: KernelTask, target: KernelTarget, word: int | None) -> list[Tile]:
    conv, group = task.conv, task.conv.out_channels // task.conv.groups
    quantum = target.vector_bits // (word or 32)
    along = _along(task, target, word) if word and word > 8 else []
    # A broadcast from memory is as good where `together` is 1; else from a register, of 16 bytes at most.
    together = (1,) if target.together == 1 else tuple(n for n in (1, 4, 8, 16) if n * (word or 32) <= 128)
    together = together if word else (1,)
    tiles = []
    for pixels, vectors in product(range(1, 17), _VECTORS):
        lanes = vectors * quantum
        if lanes - quantum >= group or pixels > conv.out_width * conv.out_height:
            continue
        for rows, at_once in product((1, 2, 4, 7), together):
            if conv.out_height % rows or pixels % rows or pixels // rows > conv.out_width:
                continue
            held = pixels * vectors + vectors + (pixels if at_once > 1 else 1)
            if not target.registers // 4 <= held <= target.registers + 2:
                continue
            tile = Tile(pixels=pixels, lanes=lanes, quantum=quantum, rows=rows, together=at_once, word=word)
            orders = (False, True) if group > lanes else (False,)
            tiles += [replace(tile, unroll=u, blocks_outside=o) for u, o in product(_UNROLLS, orders)]
    return along + tiles


def _along(task: KernelTask, target: KernelTarget, word: int) -> list[Tile]:
    """Tiles that sum along the channels, a whole vector of words at a time."""
    conv, group = task.conv, task.conv.out_channels // task.conv.groups
    depth = target.vector_bits // word
    tiles = []
    for pixels, quantum, lanes in product(range(1, 9), (2, 4, 8), (16, 32, 64)):
        held = pixels * quantum + pixels + 1
        if lanes - quantum >= group or not target.registers // 4 <= held <= target.registers + 2:
            continue
        rows = [r for r in (1, 2) if not (conv.out_height % r or pixels % r)]
        orders = (False, True) if group > lanes else (False,)
        tile = Tile(pixels=pixels, lanes=lanes, quantum=quantum, depth=depth, word=word)
        tiles += [
            replace(tile, rows=r, unroll=u, blocks_outside=o)
            for r, u, o in product(rows, (1, 3, 4, 6, 12), orders)
        ]
    return tiles


def _settled(task: KernelTask, target: KernelTarget, tile: Tile) -> Tile:
    """The same kernel with nothing left to the target."""
    return replace(
        tile,
        rows=tile.rows or rows_together(task.conv, tile.pixels),
        together=(tile.together or target.together),
        word=tile.word or (task.packing.word if task.packing else None),
    )
