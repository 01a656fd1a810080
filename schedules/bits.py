"""How bits lie in memory, and the plain packing of them.

Bit 1 stands for +1, bit 0 for -1. Channel c is bit c % 8 of byte c // 8; words are little-endian, so that a
32-bit word is four such bytes. The channels of each group start a new word. What fills up the last word is 0
in activations and in weights alike, so `activation ^ weight` is 0 there and counts nothing. The same holds
for the halo, the rows and columns that stand around a packed image for the padding of the convolution that
reads it; `border_tables` in borders.py takes out again what a 0 in the halo counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Packing:
    """channels: before packing; groups: each starts a word; word: 8, 16 or 32 bits;
    halo: top, left, bottom, right."""

    channels: int
    word: int
    groups: int = 1
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def words_per_group(self) -> int:
        return -(-(self.channels // self.groups) // self.word)

    @property
    def words(self) -> int:
        return self.words_per_group * self.groups

    @property
    def dtype(self) -> str:
        return f"uint{self.word}"

    def shape(self, n: int, h: int, w: int) -> tuple[int, int, int, int]:
        top, left, bottom, right = self.halo
        return (n, h + top + bottom, w + left + right, self.words)


def pack(truth: np.ndarray, packing: Packing) -> np.ndarray:
    """bool [N, H, W, C] -> words [N, H + halo, W + halo, words]."""
    n, h, w, c = truth.shape
    group = c // packing.groups
    filled = np.zeros((n, h, w, packing.groups, packing.words_per_group * packing.word), bool)
    filled[..., :group] = truth.reshape(n, h, w, packing.groups, group)
    words = (
        np.packbits(filled, axis=-1, bitorder="little").view(packing.dtype).reshape(n, h, w, packing.words)
    )
    top, left, bottom, right = packing.halo
    return np.pad(words, ((0, 0), (top, bottom), (left, right), (0, 0)))


def unpack(words: np.ndarray, packing: Packing) -> np.ndarray:
    """The inverse of `pack`: words with halo -> bool [N, H, W, C]."""
    top, left, bottom, right = packing.halo
    inner = words[:, top : words.shape[1] - bottom, left : words.shape[2] - right]
    n, h, w, _ = inner.shape
    flat = np.ascontiguousarray(inner).reshape(n, h, w, packing.groups, packing.words_per_group)
    bits = np.unpackbits(flat.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    return bits[..., : packing.channels // packing.groups].reshape(n, h, w, packing.channels)
