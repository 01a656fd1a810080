"""The sums of one tile, in vector registers: pixels x lanes of them.

`across`: a vector holds the sums of neighbouring output channels. One word of an activation is broadcast, and
meets that word of every channel.

`along`: a vector holds parts of one sum. Neighbouring words of an activation meet the same words of one
channel, nothing is broadcast, and the parts are added up at the end.

`dotted`: as `across`, over words of bytes, by the instruction that a processor has for their dot product.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, in_pieces, load, spread, store, whole_vectors
from schedules.targets.kernel_target import DotProduct, Tile

# Vectors that are added to in turn: as many as hide most of the latency of a multiplication and addition.
CHAINS = 4
IN_HALF = 64
"""Products that are added up in float16 before float32 takes their sum. To add so many rounds by 64 / 2**11
of the sum of their magnitudes at most, and as a rule by a tenth of that."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What a tile reads: `count` runs of `words` words that are neighbours in memory, for each pixel."""

    activations: tirx.Buffer
    weights: tirx.Buffer
    count: int
    words: int
    starts: Callable[[Any], list[Any]]  # (i): where run i of each pixel begins
    offset: Any  # where the weights of the block begin

    @property
    def binary(self) -> bool:
        """Words of bits; floats otherwise."""
        return "float" not in str(self.weights.dtype)


def across(runs: Runs, sums: tirx.Buffer, pixels: int, width: int, tile: Tile, together: int) -> None:
    """Write pixels x width sums. together: see `KernelTarget`."""
    weights, dtype = runs.weights, sums.dtype
    # A byte counts at most 8 a step; 31 steps fit into its 255.
    limit = {"uint8": 31, "float16": IN_HALF}.get(str(weights.dtype), 0)
    narrow = limit > 0
    # One sum waits for the one before: a float tile of few vectors adds up in several parts.
    parts = 1 if runs.binary or narrow else max(1, CHAINS * tile.quantum // (pixels * width))
    whole = T.alloc_buffer((parts * pixels * width,), dtype, scope="local")
    part = T.alloc_buffer((pixels * width,), weights.dtype, scope="local") if narrow else whole
    vectors = whole_vectors(width)

    def clear(buffer):
        for m in range(int(buffer.shape[0]) // width):
            for lane, lanes in vectors:
                store(buffer, m * width + lane, lanes, spread(tirx.const(0, buffer.dtype), lanes))

    def widen():
        for m in range(pixels):
            for lane, lanes in vectors:
                at = m * width + lane
                wide = load(part, at, lanes).astype(f"{dtype}x{lanes}")
                store(whole, at, lanes, load(whole, at, lanes) + wide)

    def run(i, widened: bool = narrow):
        """widened: the sums of so many steps as the narrow ones hold are added to the whole ones."""
        starts = runs.starts(i)
        w_start = runs.offset + i * (runs.words * width)

        def step(k, first_sum: int, activation):
            if tile.abreast and runs.binary:
                for lane, lanes in whole_vectors(width, tile.abreast * tile.quantum):
                    w = T.Bind(load(weights, w_start + k * width + lane, lanes))
                    counts = popcounts([T.Bind(spread(activation(m), lanes)) for m in range(pixels)], [w])
                    for m, count in enumerate(counts):
                        at = (first_sum + m) * width + lane
                        store(part, at, lanes, load(part, at, lanes) + count)
                return
            for lane, lanes in vectors:
                w = load(weights, w_start + k * width + lane, lanes)
                for m in range(pixels):
                    a = spread(activation(m), lanes)
                    new = tirx.popcount(a ^ w) if runs.binary else a * w
                    at = (first_sum + m) * width + lane
                    store(part, at, lanes, load(part, at, lanes) + new)

        def read(k, count: int):
            """Steps k to k + count, whose activations are read at once for each pixel."""
            if count == 1 or together == 1:
                for j in range(count):
                    step(k + j, j % parts * pixels, lambda m, j=j: runs.activations[starts[m] + k + j])
                return
            words = [T.Bind(load(runs.activations, start + k, count)) for start in starts]
            for j in range(count):
                step(k + j, j % parts * pixels, lambda m, j=j: tirx.Shuffle([words[m]], [j]))

        def steps(first, count: int):
            if widened:
                clear(part)
            size = max(read_together(count, together), min(parts, 1 << count.bit_length() - 1))
            unrolled(count // size, tile.unroll, lambda i: read(first + i * size, size))
            done = count - count % size
            while done < count:
                size = 1 << (count - done).bit_length() - 1
                read(first + done, size)
                done += size
            if widened:
                widen()

        if widened:
            in_pieces(runs.words, piece_of_run(runs.words, limit), steps)
        else:
            steps(0, runs.words)

    def several(i):
        clear(part)
        each(together_runs, lambda j: run(i * together_runs + j, widened=False))
        widen()

    clear(whole)
    together_runs = 1 if runs.binary else runs_together(runs, limit)
    if together_runs > 1:
        each(runs.count // together_runs, several)
    else:
        each(runs.count, run)
    # The epilogue reads the sums from memory, so that its loops need not be unrolled.
    for m in range(pixels):
        for lane, lanes in vectors:
            total = load(whole, m * width + lane, lanes)
            for i in range(1, parts):
                total = total + load(whole, (i * pixels + m) * width + lane, lanes)
            store(sums, m * width + lane, lanes, total)


def along(runs: Runs, sums: tirx.Buffer, pixels: int, width: int, tile: Tile) -> None:
    """Write pixels x width sums, of `tile.quantum` channels at a time. `tile.depth` divides a run."""
    depth, together = tile.depth, tile.quantum
    piece = math.gcd(depth, together)

    def channels(q):
        parts = T.alloc_buffer((pixels * together * depth,), sums.dtype, scope="local")
        for p in range(pixels * together):
            store(parts, p * depth, depth, spread(tirx.const(0, sums.dtype), depth))

        def run(i):
            starts = runs.starts(i)
            w_start = runs.offset + (q * runs.count + i) * (runs.words * together)

            def step(k):
                words = [T.Bind(load(runs.activations, start + k * depth, depth)) for start in starts]
                if tile.abreast and runs.binary:
                    at = [w_start + (k * together + c) * depth for c in range(together)]
                    w = [T.Bind(load(runs.weights, a, depth)) for a in at]
                    for first in range(0, together, tile.abreast):
                        counts = popcounts(words, w[first : first + tile.abreast])
                        for i, count in enumerate(counts):
                            p = (i % pixels * together + first + i // pixels) * depth
                            store(parts, p, depth, load(parts, p, depth) + count)
                    return
                for c in range(together):
                    w = T.Bind(load(runs.weights, w_start + (k * together + c) * depth, depth))
                    for m in range(pixels):
                        p = (m * together + c) * depth
                        new = tirx.popcount(words[m] ^ w) if runs.binary else words[m] * w
                        store(parts, p, depth, load(parts, p, depth) + new)

            unrolled(runs.words // depth, tile.unroll, step)

        each(runs.count, run)
        vectors = [load(parts, p * depth, depth) for p in range(pixels * together)]
        totals = add_up(vectors, depth)
        for m in range(pixels):
            for c in range(0, together, piece):
                which, lane = divmod(m * together + c, depth)
                part = tirx.Shuffle([totals[which]], list(range(lane, lane + piece)))
                store(sums, m * width + q * together + c, piece, part)

    each(width // together, channels)


def dotted(runs: Runs, sums: tirx.Buffer, pixels: int, width: int, dot: DotProduct) -> None:
    """Write pixels x width sums of int8 products; activations are bytes, and words begin at any of them."""
    size_of_word = dot.word // 8
    whole = T.alloc_buffer((pixels * width,), "int32", scope="local")

    def run(i):
        starts = runs.starts(i)
        w_start = runs.offset + i * (runs.words * width)

        def step(k, words: list[Any]):
            """words: one after the other from k on, of a pixel."""
            for v in range(0, width, dot.lanes):
                w = [load(runs.weights, w_start + (k + j) * width + v, dot.lanes) for j in range(len(words))]
                for m in range(pixels):
                    a = [spread(word(m), dot.lanes) for word in words]
                    at = m * width + v
                    store(whole, at, dot.lanes, dot.add(load(whole, at, dot.lanes), a, w))

        def read(k, count: int):
            """Steps k to k + count, whose activations are read at once for each pixel."""
            dtype = f"uint{dot.word}x{count}" if count > 1 else f"uint{dot.word}"
            found = [
                T.Bind(
                    as_words(load(runs.activations, start + k * size_of_word, size_of_word * count), dtype)
                )
                for start in starts
            ]
            if count == 1:
                step(k, [lambda m: found[m]])
                return
            words = [lambda m, j=j: tirx.Shuffle([found[m]], [j]) for j in range(count)]
            for j in range(0, count, dot.at_once):
                step(k + j, words[j : j + dot.at_once])

        size = read_together(runs.words, dot.together)
        each(runs.words // size, lambda i: read(i * size, size))
        done = runs.words - runs.words % size
        while done < runs.words:
            size = 1 << (runs.words - done).bit_length() - 1
            read(done, size)
            done += size

    for m in range(pixels):
        store(whole, m * width, width, spread(tirx.const(0, "int32"), width))
    each(runs.count, run)
    # The epilogue reads the sums from memory, so that its loops need not be unrolled.
    for m in range(pixels):
        store(sums, m * width, width, load(whole, m * width, width))


def as_words(data: Any, dtype: str) -> Any:
    return tirx.call_intrin(dtype, "tirx.reinterpret", data)


def popcounts(activations: list[Any], weights: list[Any]) -> list[Any]:
    """Of each of the weights with each of the activations; no operation stands beside one it waits for."""
    differing = [T.Bind(a ^ w) for w, a in product(weights, activations)]
    return [T.Bind(tirx.popcount(bits)) for bits in differing]


def add_up(vectors: list[Any], depth: int, combine: Callable[[Any, Any], Any] = operator.add) -> list[Any]:
    """The sum over the lanes of each vector, `depth` sums to a vector, by adding neighbours pairwise; or what
    else they come to."""
    vectors = [T.Bind(v) for v in vectors]
    vectors += [vectors[-1]] * (-len(vectors) % depth)
    for _ in range(depth.bit_length() - 1):
        even, odd = list(range(0, 2 * depth, 2)), list(range(1, 2 * depth, 2))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [T.Bind(combine(tirx.Shuffle([a, b], even), tirx.Shuffle([a, b], odd))) for a, b in pairs]
    return vectors


def unrolled(extent: int, factor: int, body: Callable[[Any], None]) -> None:
    """A loop of `extent` steps, `factor` of them written out at a time, and then the rest."""

    def several(i) -> None:
        for j in range(factor):
            body(i * factor + j)

    whole = extent // factor
    each(whole, several)
    for i in range(whole * factor, extent):
        body(i)


def piece_of_run(length: int, limit: int) -> int:
    """How long the pieces are, of at most `limit`, into which a run of words is cut nearly evenly."""
    return -(-length // -(-length // limit))


def runs_together(runs: Runs, limit: int) -> int:
    """How many whole runs have no more than so many words, of those that divide their number."""
    return max(
        n for n in range(1, runs.count + 1) if runs.count % n == 0 and (n == 1 or n * runs.words <= limit)
    )


def read_together(words: int, most: int) -> int:
    """How many words of a run to read at a time: so that no rest is left, if half of `most` does that."""
    even = next(n for n in (most, most // 2, 1) if n <= 1 or words % n == 0)
    return even if even > 1 else most
