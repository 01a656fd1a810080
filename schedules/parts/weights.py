"""Weights as a kernel reads them: packed at compile time, and laid out for its tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schedules.geometry import Convolution
from schedules.targets.kernel_target import Tile


def pack_weights(weights: np.ndarray, word: int) -> np.ndarray:
    """bool [O, KH, KW, C / groups], true where +1 -> words [O, KH, KW, words per group]."""
    out_channels, kh, kw, channels = weights.shape
    filled = np.zeros((out_channels, kh, kw, -(-channels // word) * word), bool)
    filled[..., :channels] = weights
    return np.packbits(filled, axis=-1, bitorder="little").view(f"uint{word}")


def pack_int8(weights: np.ndarray, conv: Convolution, word: int) -> np.ndarray:
    """int8 [O, KH, KW, C / groups] -> words [O, runs, 1, words of a run]: each run of taps that are
    neighbours in memory is filled up with 0 to whole words of bytes."""
    runs = weights.reshape(len(weights), -1, 1, conv.taps_in_a_run * weights.shape[-1])
    missing = -runs.shape[-1] % (word // 8)
    filled = np.pad(runs, ((0, 0), (0, 0), (0, 0), (0, missing)))
    return np.ascontiguousarray(filled).view(f"uint{word}")


def offsets(weights: np.ndarray, zero_point: int) -> np.ndarray:
    """int32 [O]: what to add to sums over activations that are stored with this zero point."""
    return (-zero_point * weights.astype(np.int32).sum((1, 2, 3))).astype(np.int32)


@dataclass(frozen=True)
class Block:
    """Output channels that are computed together: `width` lanes, of which the first `valid` exist."""

    start: int
    width: int
    valid: int


def blocks_of_group(out_channels: int, lanes: int, quantum: int) -> list[Block]:
    """Full blocks of `lanes`, then one for the rest, its width rounded up to whole vectors of `quantum`."""
    full, rest = divmod(out_channels, lanes)
    blocks = [Block(i * lanes, lanes, lanes) for i in range(full)]
    if rest:
        blocks.append(Block(full * lanes, -(-rest // quantum) * quantum, rest))
    return blocks


def full_and_rest(out_channels: int, lanes: int, quantum: int) -> tuple[list[Block], list[Block]]:
    """Those of `blocks_of_group`: the full ones, which are alike, and one or none for the rest."""
    blocks, full = blocks_of_group(out_channels, lanes, quantum), out_channels // lanes
    return blocks[:full], blocks[full:]


def lay_out(weights: np.ndarray, groups: int, tile: Tile) -> np.ndarray:
    """[O, KH, KW, C] -> flat, in the kernel's order: group, block, kh, kw, c, lane; missing lanes are 0.

    With a depth: group, block, its parts of `quantum` lanes, (kh, kw, c) by the depth, lane, word of the
    depth.
    """
    pieces = []
    for group in np.split(weights, groups):
        for block in blocks_of_group(len(group), tile.lanes, tile.quantum):
            piece = np.zeros((block.width, *weights.shape[1:]), weights.dtype)
            piece[: block.valid] = group[block.start : block.start + block.valid]
            if tile.depth == 1:
                pieces.append(np.moveaxis(piece, 0, -1).ravel())
            else:
                vectors = piece.reshape(block.width // tile.quantum, tile.quantum, -1, tile.depth)
                pieces.append(np.moveaxis(vectors, 1, 2).ravel())
    return np.concatenate(pieces)
