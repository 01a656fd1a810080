"""Images that a kernel computes channels last and writes plane by plane, [N, C, H, W].

A band of whole rows is kept beside the kernel until it is done, and then turned in registers, square by
square: so every store is a vector of neighbouring pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat, in_pieces, load, store
from schedules.parts.epilogue import Output

BAND = 64
LONGEST = 512


def band_of_rows(height: int, width: int) -> int:
    """The fewest rows that an image divides into with at least `BAND` pixels together, or as many as may be
    kept beside a kernel."""
    whole = [r for r in range(1, height + 1) if height % r == 0 and (r == 1 or r * width <= LONGEST)]
    return next((r for r in whole if r * width >= BAND), whole[-1])


def square(count: int, most: int) -> int:
    """The largest square with so many pixels, a power of 2."""
    return min(most, 1 << count.bit_length() - 1)


class Planes:
    """One band of each output that wants planes.

    outputs: of the kernel, with their buffers; n, top: the image, and the band's first row, of `rows`;
    channel: the first of `valid` that are computed together; floats: how many 32-bit numbers a vector
    register holds.
    """

    def __init__(
        self,
        outputs: Sequence[tuple[Output, tirx.Buffer]],
        n: Any,
        top: Any,
        rows: int,
        channel: Any,
        valid: int,
        floats: int,
    ):
        planar = {i: buffer for i, (output, buffer) in enumerate(outputs) if output.form == "planar"}
        channels, height, self.row = (int(extent) for extent in next(iter(planar.values())).shape[1:])
        self.top, self.valid, self.width = top, valid, -(-valid // floats) * floats
        self.plane, self.count = height * self.row, rows * self.row
        self.side = square(self.count, floats)
        self.start = (n * channels + channel) * self.plane + top * self.row
        self.bands = {
            i: (T.alloc_buffer((self.count * self.width,), buffer.dtype, scope="local"), flat(buffer))
            for i, buffer in planar.items()
        }

    def keep(self, i: int, y: Any, x: Any, lane: Any, lanes: int, value: Any) -> None:
        """Channels `lane` to `lane + lanes` of one pixel of output i."""
        pixel = (y - self.top) * self.row + x
        store(self.bands[i][0], pixel * self.width + lane, lanes, value)

    def write(self) -> None:
        """Turn the band and write it; pixels that make up no whole square are written with some before."""
        for i in self.bands:
            in_pieces(self.valid, self.side, partial(self._channels, i))

    def _channels(self, i: int, lane: Any, count: int) -> None:
        band, out = self.bands[i]

        def square_at(pixel: Any) -> None:
            place = self.start + lane * self.plane + pixel
            turn(band, pixel * self.width + lane, self.width, out, place, self.plane, self.side, count)

        each(self.count // self.side, lambda p: square_at(p * self.side))
        if self.count % self.side:
            square_at(self.count - self.side)


def turn(
    source: tirx.Buffer,
    start: Any,
    pitch: Any,
    out: tirx.Buffer,
    place: Any,
    out_pitch: Any,
    side: int,
    count: int,
) -> None:
    """Turn a square of 32-bit numbers: row r, column c of `source` goes to row c, column r of `out`.

    start, place: where the squares begin in the flat buffers; pitch, out_pitch: from one row to the next;
    count: how many rows of `out` are written.
    """
    rows = [T.Bind(load(source, start + r * pitch, side)) for r in range(side)]
    for c, column in enumerate(_columns(rows)[:count]):
        store(out, place + c * out_pitch, side, column)


def _columns(rows: list[Any]) -> list[Any]:
    """The columns of a square, whose side is a power of 2, by shuffles that processors have: neighbours are
    interleaved within pieces of 128 bits, and then the pieces change places."""
    side = len(rows)
    if side < 4:
        return _pieces(rows, side, 1)
    columns: dict[int, list[Any]] = {k: [] for k in range(4)}
    for a, b, c, d in zip(rows[::4], rows[1::4], rows[2::4], rows[3::4], strict=True):
        for k in (0, 2):
            above, below = (_within(x, y, (k, side + k, k + 1, side + k + 1)) for x, y in ((a, b), (c, d)))
            columns[k].append(_within(above, below, (0, 1, side, side + 1)))
            columns[k + 1].append(_within(above, below, (2, 3, side + 2, side + 3)))
    done = [_pieces(column, side, 4) for column in columns.values()]
    return [done[c % 4][c // 4] for c in range(side)]


def interleaved(rows: list[Any]) -> list[Any]:
    """The columns of a square, whose side is a power of 2 and whose rows are no longer than 128 bits."""
    side = len(rows)
    half, both = side // 2, [lane for i in range(side) for lane in (i, side + i)]
    for _ in range(side.bit_length() - 1):
        rows = [_shuffle(rows[i], rows[i + half], both[k : k + side]) for i in range(half) for k in (0, side)]
    return rows


def _pieces(vectors: list[Any], lanes: int, size: int) -> list[Any]:
    """Vector m of the result has piece m of each vector, a piece being `size` lanes."""
    if len(vectors) == 1:
        return vectors
    halves = []
    for first in (0, size):
        order = [i + k for i in range(first, 2 * lanes, 2 * size) for k in range(size)]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        halves.append(_pieces([_shuffle(a, b, order) for a, b in pairs], lanes, size))
    return [half[m] for m in range(len(vectors) // 2) for half in halves]


def _within(a: Any, b: Any, order: tuple[int, ...]) -> Any:
    """The lanes of a and b in this order, in each piece of 4 lanes."""
    lanes = str(a.ty).partition("x")[2]
    return _shuffle(a, b, [i + k for i in range(0, int(lanes), 4) for k in order])


def _shuffle(a: Any, b: Any, order: list[int]) -> Any:
    return T.Bind(tirx.Shuffle([a, b], order))
