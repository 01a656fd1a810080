"""Differing bits looked up four at a time, where a popcount takes long: AVX2 has to look that up too.

Let a be four bits of an activation and w those of a weight. Each of the sixteen a has a table of sixteen
bytes,

    table[a][w] = popcount(a ^ w),

and one instruction looks up the four weights of as many output channels as a register has bytes, all in the
table of one pixel. With the addition that is two instructions for 128 products; xor, popcount and addition
are nine for 256, as a popcount is two look-ups and five other instructions.

The price is memory: weights are stored four bits to a byte. Activations are made bytes as well, before the
layer is computed: of each four bits a the place where its table begins, 16 * a.

Where few bits meet, their dot product is a byte, and so are its parts, of which the tables then are made:

    table[a][w] = 4 - 2 * popcount(a ^ w).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.emit import each, flat, in_pieces, load, spread, store
from schedules.parts.sums import Runs, piece_of_run, runs_together, unrolled

WORD = 4  # bits of an activation that are looked up at a time
LANES = 32  # bytes of a vector
_ENTRIES = 1 << WORD
_TABLES = _ENTRIES * _ENTRIES  # bytes
_FEW = 8  # look-ups
_EXPANDED = 1 << 10  # weights whose sixteen tables take half of the first cache
MOST = 63  # look-ups, each of at most 4, whose sum a byte holds
MOST_SIGNED = 31  # the same where they are from -4 to 4


@dataclass(frozen=True, kw_only=True)
class LookUps:
    """How the sums of a kernel are looked up."""

    look_up: Callable[[Any, Any], Any]  # as of `KernelTarget`
    count: int  # of a sum
    signed: bool  # what is looked up are parts of dot products, not counts
    start: int  # what a sum of bytes begins with
    fours: int  # of bits in a byte of the weights; 2 where these are as they were packed
    expanded: bool  # the weights are what `expand` makes of them

    @property
    def byte(self) -> str | None:
        """The dtype of a sum that a byte holds; None where that is not so."""
        return ("int8" if self.signed else "uint8") if self.count <= MOST else None


def prepare_weights(words: np.ndarray) -> np.ndarray:
    """[O, KH, KW, words per group] -> uint8 [O, KH, KW, four bits of them one after another]."""
    packed = words.view(np.uint8)
    return np.stack([packed % _ENTRIES, packed // _ENTRIES], -1).reshape(*packed.shape[:-1], -1)


def prepare_activations(source: tirx.Buffer, how: LookUps) -> tirx.Buffer:
    """Packed -> uint8, flat: all tables, and then the places of each four bits."""
    packed = flat(source, "uint8")
    extent, size = int(packed.shape[0]), LANES // 2
    made = T.alloc_buffer((_TABLES + 2 * extent,), "uint8")
    for a in range(_ENTRIES):
        store(made, a * _ENTRIES, _ENTRIES, _entries(a, how.signed))

    def places(at: Any, count: int) -> tuple[Any, Any]:
        """Of the lower and of the upper four bits of so many bytes."""
        both = T.Bind(load(packed, at, count))
        shift, mask = (spread(tirx.const(number, "uint8"), count) for number in (WORD, 256 - _ENTRIES))
        return T.Bind(both << shift), T.Bind(both & mask)

    def vectors(at: Any) -> None:
        low_and_high = places(at, size)
        order = [lane for i in range(size) for lane in (i, size + i)]
        for first in (0, size):
            turned = tirx.Shuffle(list(low_and_high), order[first : first + size])
            store(made, _TABLES + 2 * at + first, size, turned)

    def single(at: Any) -> None:
        for i, place in enumerate(places(at, 1)):
            store(made, _TABLES + 2 * at + i, 1, place)

    each(extent // size, lambda i: vectors(i * size))
    each(extent % size, lambda i: single(extent // size * size + i))
    return made


def worth_expanding(conv: Convolution, look_ups: int) -> bool:
    """Whether it pays to `expand` the weights: a sum has few parts, which lie in the first cache, and there
    are so many sums that making them takes no time. Measured on a Zen 4, with 32 to 64 channels: 0.84 to 0.90
    of the time with 4 to 8 look-ups, as much with 16, and more with more."""
    lanes = -(-conv.out_channels // LANES) * LANES
    pixels = conv.batch * conv.out_height * conv.out_width
    return look_ups <= _FEW and conv.groups == 1 and pixels >= 32 * _ENTRIES and look_ups * lanes <= _EXPANDED


def expand(weights: tirx.Buffer, how: LookUps) -> tirx.Buffer:
    """What `prepare_weights` made -> uint8, flat: of each `LANES` weights that are neighbours what they give
    with each of the sixteen activations, one vector after another. Nothing is left to look up then: what a
    pixel finds of so many channels are neighbours in memory."""
    extent = int(weights.shape[0])
    made = T.alloc_buffer((_ENTRIES * extent,), "uint8")

    def vector(i: Any) -> None:
        own = T.Bind(load(weights, i * LANES, LANES))
        for a in range(_ENTRIES):
            entries = _entries(a, how.signed)
            table = tirx.Shuffle([entries, entries], list(range(LANES)))
            store(made, (i * _ENTRIES + a) * LANES, LANES, how.look_up(table, own))

    each(extent // LANES, vector)
    return made


def _entries(a: int, signed: bool) -> Any:
    """The table of an activation: of each weight the differing bits, or their part of the dot product."""
    weights = T.ramp(tirx.const(0, "uint8"), tirx.const(1, "uint8"), _ENTRIES)
    count = tirx.popcount(weights ^ spread(tirx.const(a, "uint8"), _ENTRIES))
    return spread(tirx.const(WORD, "uint8"), _ENTRIES) - count - count if signed else count


def looked_up(runs: Runs, sums: tirx.Buffer, pixels: int, width: int, unroll: int, how: LookUps) -> None:
    """Write pixels x width sums, which are bytes where a byte holds what is looked up. runs: of what
    `prepare_activations` and `prepare_weights` make, the first run beginning at 0.

    Weights that are as they were packed, since they are not known before the network runs, are taken apart
    once for all pixels of a tile."""
    dtype, lanes = sums.dtype, range(0, width, LANES)
    counts = T.alloc_buffer((pixels * width,), "uint8", scope="local")

    def fill(buffer: tirx.Buffer, value: int) -> None:
        for at in range(0, pixels * width, LANES):
            store(buffer, at, LANES, spread(tirx.const(value, buffer.dtype), LANES))

    def widen() -> None:
        for at in range(0, pixels * width, LANES):
            wide = load(counts, at, LANES).astype(f"{dtype}x{LANES}")
            store(whole, at, LANES, load(whole, at, LANES) + wide)

    def table(place: Any) -> Any:
        """The sixteen bytes from this one on, twice."""
        once = T.Bind(load(runs.activations, place.astype("int32"), _ENTRIES))
        return T.Bind(tirx.Shuffle([once, once], list(range(LANES))))

    def steps(i: Any, first: Any, count: int) -> None:
        """So many words from this one on of run i."""
        starts = runs.starts(i)
        begin = runs.offset + i * (runs.words * width)

        def step(j: Any) -> None:
            k = first + j
            loaded = [T.Bind(load(runs.weights, begin + k * width + v, LANES)) for v in lanes]
            for four in range(how.fours):
                weights = loaded if how.fours == 1 else [T.Bind(_four_of_eight(w, four)) for w in loaded]
                for m in range(pixels):
                    own = table(runs.activations[_TABLES + starts[m] + k * how.fours + four])
                    for v, weight in zip(lanes, weights, strict=True):
                        at = m * width + v
                        store(counts, at, LANES, load(counts, at, LANES) + how.look_up(own, weight))

        def step_of_expanded(j: Any) -> None:
            k = first + j
            for m in range(pixels):
                place = T.Bind(
                    runs.activations[_TABLES + starts[m] + k].astype("int32") * (LANES // _ENTRIES)
                )
                for v in lanes:
                    found = load(runs.weights, (begin + k * width + v) * _ENTRIES + place, LANES)
                    at = m * width + v
                    store(counts, at, LANES, load(counts, at, LANES) + found)

        unrolled(count, unroll, step_of_expanded if how.expanded else step)

    def some(i: Any) -> None:
        fill(counts, 0)
        each(together, lambda j: steps(i * together + j, 0, runs.words))
        widen()

    def piece(i: Any, first: Any, count: int) -> None:
        fill(counts, 0)
        steps(i, first, count)
        widen()

    if how.byte:
        fill(counts, how.start % 256)
        each(runs.count, lambda i: steps(i, 0, runs.words))
        for at in range(0, pixels * width, LANES):
            sum_ = load(counts, at, LANES)
            if dtype == "int8":
                sum_ = tirx.call_intrin(f"int8x{LANES}", "tirx.reinterpret", sum_)
            store(sums, at, LANES, sum_)
        return
    whole = T.alloc_buffer((pixels * width,), dtype, scope="local")
    fill(whole, 0)
    most = MOST // how.fours
    together, size = runs_together(runs, most), piece_of_run(runs.words, most)
    if together > 1:
        each(runs.count // together, some)
    else:
        each(runs.count, lambda i: in_pieces(runs.words, size, lambda first, count: piece(i, first, count)))
    # The epilogue reads the sums from memory, so that its loops need not be unrolled.
    for at in range(0, pixels * width, LANES):
        store(sums, at, LANES, load(whole, at, LANES))


def _four_of_eight(packed: Any, upper: int) -> Any:
    """Of each byte of a vector the lower or the upper four bits."""
    shift, mask = (spread(tirx.const(number, "uint8"), LANES) for number in (WORD, _ENTRIES - 1))
    return packed >> shift if upper else packed & mask
