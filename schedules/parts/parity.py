"""Differing bits counted two words at a time, where a popcount takes long: AVX2 has to look it up.

Let x and y be two words of `activation ^ weight`, and p the parity, bit by bit, of all words before them. A
full adder makes of the three bits at each position

    p + x + y = (p ^ x ^ y) + 2 * carry,   carry = majority(p, x, y) = x ^ ((p ^ x) & (x ^ y)),

so that over all pairs of words, the last of which may be filled up with a word of zeros,

    differing bits = popcount(parity of all words) + 2 * (sum over the pairs of popcount(carry)),

which is one popcount for two words. The three operands of a carry are linear: with a and b the words of the
activation, v and w those of the weight, q and r the parities of what comes before on either side,

    x = a ^ v,   p ^ x = (q ^ a) ^ (r ^ v),   x ^ y = (a ^ b) ^ (v ^ w).

So each side is prepared by itself, the weights at compile time, as three words for every pair and one, the
parity of all, at the end. Activations are prepared once for each output pixel, and read for every channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.emit import each, in_pieces, load, spread, store
from schedules.parts.sums import Runs, piece_of_run, unrolled

WORD = 32  # bits
LANES = 8  # words of a vector
_MOST_PAIRS = 31  # whose counts, of at most 8, a byte holds


def prepared(words: int) -> int:
    """How many words are made of so many."""
    return 3 * -(-words // 2) + 1


def prepare_weights(words: np.ndarray) -> np.ndarray:
    """uint32 [O, KH, KW, words per group] -> [O, 1, 1, prepared(KH * KW * words per group)]."""
    flat = words.reshape(len(words), -1)
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    first, second = flat[:, ::2], flat[:, 1::2]
    after = np.bitwise_xor.accumulate(first ^ second, axis=1)
    before = np.pad(after, ((0, 0), (1, 0)))[:, :-1]
    triples = np.stack([first, before ^ first, first ^ second], -1).reshape(len(words), -1)
    return np.concatenate([triples, after[:, -1:]], 1)[:, None, None]


def prepare_activations(
    words: tirx.Buffer,
    conv: Convolution,
    runs: int,
    run: int,
    start: Callable[[Any, Any, Any, Any, Any], Any],
) -> tirx.Buffer:
    """uint32, flat -> flat: for each output pixel and group the prepared words of its `runs`, each of `run`
    words that are neighbours in memory."""
    length = prepared(runs * run)
    made = T.alloc_buffer(
        (conv.batch * conv.out_height * conv.out_width * conv.groups * length,), f"uint{WORD}"
    )
    zero = tirx.const(0, f"uint{WORD}")

    def of_pixel(n: Any, y: Any, x: Any, group: Any) -> None:
        begin = (((n * conv.out_height + y) * conv.out_width + x) * conv.groups + group) * length
        parity = T.alloc_buffer((1,), f"uint{WORD}", scope="local")
        store(parity, 0, 1, zero)

        def pair(number: Any, first: Any, second: Any) -> None:
            at = begin + number * 3
            a = T.Bind(first)
            both = a if second is None else T.Bind(a ^ second)
            store(made, at, 1, a)
            store(made, at + 1, 1, parity[0] ^ a)
            store(made, at + 2, 1, both)
            store(parity, 0, 1, parity[0] ^ both)

        def pairs(number: Any, at: Any, count: int) -> None:
            """So many words, an even number, from this one on."""
            each(count // 2, lambda j: pair(number + j, words[at + 2 * j], words[at + 2 * j + 1]))

        def two_runs(i: Any) -> None:
            """The pair in the middle is of both where a run is odd."""
            one, other, odd = start(n, y, x, group, 2 * i), start(n, y, x, group, 2 * i + 1), run % 2
            number = i * run
            pairs(number, one, run - odd)
            if odd:
                pair(number + run // 2, words[one + run - 1], words[other])
            pairs(number + run // 2 + odd, other + odd, run - odd)

        each(runs // 2, two_runs)
        if runs % 2:
            last, number = start(n, y, x, group, runs - 1), runs // 2 * run
            pairs(number, last, run - run % 2)
            if run % 2:
                pair(number + run // 2, words[last + run - 1], None)
        store(made, begin + length - 1, 1, parity[0])

    with T.parallel(0, conv.batch * conv.out_height) as r:
        n, y = r // conv.out_height, r % conv.out_height
        each(conv.out_width, lambda x: each(conv.groups, lambda group: of_pixel(n, y, x, group)))
    return made


def in_pairs(
    runs: Runs, sums: tirx.Buffer, pixels: int, width: int, unroll: int, add_bytes: Callable[[Any], Any]
) -> None:
    """Write pixels x width sums, uint32. The prepared words of a pixel are one run. add_bytes: as of
    `KernelTarget`."""
    starts, pairs = runs.starts(0), runs.words // 3
    counts = T.alloc_buffer((pixels * width * 4,), "uint8", scope="local")
    carries = T.alloc_buffer((pixels * width,), "int32", scope="local")
    vectors = [(m, v) for m in range(pixels) for v in range(0, width, LANES)]

    def differing(m: int, v: int, word: Any) -> Any:
        weights = load(runs.weights, runs.offset + word * width + v, LANES)
        return spread(runs.activations[starts[m] + word], LANES) ^ weights

    def counted(word: Any) -> Any:
        return tirx.popcount(tirx.call_intrin("uint8x32", "tirx.reinterpret", word))

    def step(j: Any) -> None:
        for m, v in vectors:
            x, parity, both = (T.Bind(differing(m, v, 3 * j + i)) for i in range(3))
            at = 4 * (m * width + v)
            store(counts, at, 32, load(counts, at, 32) + counted(x ^ (parity & both)))

    def piece(first: Any, count: int) -> None:
        for m, v in vectors:
            store(counts, 4 * (m * width + v), 32, spread(tirx.const(0, "uint8"), 32))
        unrolled(count, unroll, lambda j: step(first + j))
        for m, v in vectors:
            at = m * width + v
            total = load(carries, at, LANES) + add_bytes(load(counts, 4 * at, 32))
            store(carries, at, LANES, total)

    for m, v in vectors:
        store(carries, m * width + v, LANES, spread(tirx.const(0, "int32"), LANES))
    in_pieces(pairs, piece_of_run(pairs, _MOST_PAIRS), piece)
    for m, v in vectors:
        at = m * width + v
        twice = load(carries, at, LANES) * spread(tirx.const(2, "int32"), LANES)
        last = add_bytes(counted(differing(m, v, runs.words - 1)))
        store(sums, at, LANES, (twice + last).astype(f"uint32x{LANES}"))
