"""Weights of two values per output channel in bits, for kernels that multiply: before one computes a block of
output channels, it decodes the weights of that block to what they are.

A byte holds eight bits of one output channel in the kernel's order, and so lie the bytes: group, block, byte,
lane. The two values lie beside them, a lane each. What is decoded is kept beside the kernel and as large as
the weights of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, load, spread, store
from schedules.parts.weights import lay_out, pack_weights
from schedules.targets.kernel_target import Tile


@dataclass(frozen=True, kw_only=True)
class BitWeights:
    """How the weights of a kernel lie in bits. The values are floats, or bytes of which a word has several.

    numbers: of a run of activations, and of the weights that meet it; words behind them are filled up with 0.
    """

    dtype: str  # of what is decoded: float32, or words of bytes
    numbers: int

    @property
    def per_word(self) -> int:
        return 1 if self.dtype == "float32" else np.dtype(self.dtype).itemsize

    @property
    def missing(self) -> int:
        """Numbers that the last word of a run has too many."""
        return -self.numbers % self.per_word

    def bytes_of(self, words: int) -> int:
        """For one output channel with so many words of weights."""
        return -(-words * self.per_word // 8)


FLOATS = BitWeights(dtype="float32", numbers=1)


def store_in_bits(
    higher: np.ndarray, low: np.ndarray, high: np.ndarray, code: BitWeights, groups: int, tile: Tile
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a kernel takes for its weights: bits, uint8, and the lower and the higher value of each lane.

    higher: bool [O, ...] in the kernel's order, whose last axis is `numbers`, true where the value is the
    higher one; low, high: float32 or int8, [O]."""
    runs = higher.reshape(len(higher), -1, code.numbers)
    filled = np.pad(runs, ((0, 0), (0, 0), (0, code.missing)))
    bits = pack_weights(filled.reshape(len(higher), 1, 1, -1), 8)

    def lanes(values: np.ndarray) -> np.ndarray:
        if code.dtype != "float32":
            values = np.repeat(values.view(np.uint8)[:, None], code.per_word, 1).view(code.dtype)[:, 0]
        return lay_out(values.reshape(-1, 1, 1, 1), groups, tile)

    return lay_out(bits, groups, tile), lanes(low), lanes(high)


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The parameters of a kernel that has its weights in bits, and what decodes them."""

    code: BitWeights
    bits: tirx.Buffer
    low: tirx.Buffer
    high: tirx.Buffer
    words: int  # of weights, for each lane
    run: int  # of them, that meet one run of activations

    def decode(self, lane: Any, width: int) -> tirx.Buffer:
        """The weights of a block of `width` lanes, of which this is the first: word by word, lane by lane."""
        code, dtype = self.code, self.code.dtype
        decoded = T.alloc_buffer((self.words * width,), dtype)
        low, high = (T.Bind(load(values, lane, width)) for values in (self.low, self.high))
        first = lane * code.bytes_of(self.words)
        wide = "uint32" if dtype == "float32" else dtype
        per_byte = 8 // code.per_word

        def constant(number: int) -> Any:
            return spread(tirx.const(number, wide), width)

        def word(byte: Any, i: int) -> Any:
            if dtype == "float32":
                return tirx.Select((byte & constant(1 << i)) != constant(0), high, low)
            mask = constant(0)
            for j in range(code.per_word):
                bit = (byte >> constant(i * code.per_word + j)) & constant(1)
                mask = mask | ((bit * constant(255)) << constant(8 * j))
            return low ^ ((low ^ high) & mask)

        def some(b: Any, count: int) -> None:
            narrow = load(self.bits, first + b * width, width)
            byte = T.Bind(narrow.astype(f"{wide}x{width}" if width > 1 else wide))
            for i in range(count):
                store(decoded, (b * per_byte + i) * width, width, word(byte, i))

        whole, rest = divmod(self.words, per_byte)
        each(whole, lambda b: some(b, per_byte))
        if rest:
            some(whole, rest)
        if code.missing:
            kept = constant((1 << 8 * (code.per_word - code.missing)) - 1)

            def clear(run: Any) -> None:
                at = (run * self.run + self.run - 1) * width
                store(decoded, at, width, load(decoded, at, width) & kept)

            each(self.words // self.run, clear)
        return decoded
