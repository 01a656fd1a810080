"""How binary activations, and quantized ones, lie in memory, and the plain packing of them.

Bit 1 stands for +1, bit 0 for -1. Channel c is bit c % 8 of byte c // 8; words are little-endian, so that a
32-bit word is four such bytes. The channels of each group start a new word. What fills up the last word is 0
in activations and in weights alike, so `activation ^ weight` is 0 there and counts nothing. The same holds
for the halo, the rows and columns that stand around a packed image for the padding of the convolution that
reads it; `border_tables` in borders.py takes out again what a 0 in the halo counts.

Quantized activations are bytes, one a channel without a gap, and the halo stands for 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schedules.parts.quantizer import Quantizer


@dataclass(frozen=True)
class Packing:
    """channels: before packing; groups: each starts a word; word: 8, 16 or 32 bits;
    halo: top, left, bottom, right; quantizer: how floats become bytes, None where truths become bits."""

    channels: int
    word: int
    groups: int = 1
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)
    quantizer: Quantizer | None = None

    def __post_init__(self) -> None:
        if self.quantizer and (self.word, self.groups) != (8, 1):
            raise ValueError("Quantized activations are bytes, and their groups lie side by side.")

    @property
    def per_word(self) -> int:
        """Channels in a word; of a depthwise layer one, in bit 0 of a byte."""
        return 1 if self.quantizer or self.byte_a_channel else self.word

    @property
    def byte_a_channel(self) -> bool:
        """Whether each channel is a group with a byte to itself."""
        return self.word == 8 and self.channels == self.groups > 1

    @property
    def words_per_group(self) -> int:
        return -(-(self.channels // self.groups) // self.per_word)

    @property
    def words(self) -> int:
        return self.words_per_group * self.groups

    @property
    def dtype(self) -> str:
        return f"uint{self.word}"

    @property
    def nothing(self) -> int:
        """The word that stands for zeros."""
        return int.from_bytes(
            [self.quantizer.zero_point if self.quantizer else 0] * (self.word // 8), "little"
        )

    def shape(self, n: int, h: int, w: int) -> tuple[int, int, int, int]:
        top, left, bottom, right = self.halo
        return (n, h + top + bottom, w + left + right, self.words)


def pack(values: np.ndarray, packing: Packing) -> np.ndarray:
    """bool, or float32 where there is a quantizer, [N, H, W, C] -> words [N, H + halo, W + halo, words]."""
    n, h, w, c = values.shape
    if packing.quantizer:
        words = packing.quantizer.stored(packing.quantizer.quantize(values))
    else:
        group = c // packing.groups
        filled = np.zeros((n, h, w, packing.groups, packing.words_per_group * packing.word), bool)
        filled[..., :group] = values.reshape(n, h, w, packing.groups, group)
        words = np.packbits(filled, axis=-1, bitorder="little").view(packing.dtype)
        words = words.reshape(n, h, w, packing.words)
    top, left, bottom, right = packing.halo
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(words, around, constant_values=packing.nothing)


def unpack(words: np.ndarray, packing: Packing) -> np.ndarray:
    """Words with halo -> bool [N, H, W, C], or int8 where they were quantized."""
    top, left, bottom, right = packing.halo
    inner = words[:, top : words.shape[1] - bottom, left : words.shape[2] - right]
    n, h, w, _ = inner.shape
    if packing.quantizer:
        return packing.quantizer.meant(inner)
    flat = np.ascontiguousarray(inner).reshape(n, h, w, packing.groups, packing.words_per_group)
    bits = np.unpackbits(flat.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    return bits[..., : packing.channels // packing.groups].reshape(n, h, w, packing.channels)
