"""The largest and the smallest sum of each channel over the pixels of an image, or of a row, kept beside a
kernel until the last tile is done, and written then: the image itself never is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import flat, load, spread, store, whole_vectors
from schedules.parts.epilogue import Extreme, Output

_COMBINE = {"max": (tirx.max, tirx.min_value), "min": (tirx.min, tirx.max_value)}
_OPPOSITE: dict[Extreme, Extreme] = {"max": "min", "min": "max"}


class Extremes:
    """Those of one block of channels in one image.

    outputs: of the kernel, with their buffers; start: where in them, flat, the block begins; valid, width:
    its channels, and its lanes, whose sums are of `dtype`. settle(sums, lane, lanes): what is written for a
    vector of sums. falls: whether that falls as a sum rises.
    """

    def __init__(
        self,
        outputs: list[tuple[Output, tirx.Buffer]],
        start: Any,
        valid: int,
        width: int,
        dtype: str,
        settle: Callable[[Any, Any, int], Any],
        *,
        falls: bool,
    ):
        self.start, self.valid, self.settle = start, valid, settle
        self.width, self.vectors = width, whole_vectors(width)
        self.kept = []
        for output, buffer in outputs:
            assert output.extreme
            combine, neutral = _COMBINE[_OPPOSITE[output.extreme] if falls else output.extreme]
            best = T.alloc_buffer((width,), dtype, scope="local")
            for lane, lanes in self.vectors:
                store(best, lane, lanes, spread(neutral(dtype), lanes))
            self.kept.append((combine, best, flat(buffer)))

    def take(self, sums: tirx.Buffer, pixels: int) -> None:
        """The sums of a tile."""
        for combine, best, _ in self.kept:
            for lane, lanes in self.vectors:
                value = load(best, lane, lanes)
                for m in range(pixels):
                    value = combine(value, load(sums, m * self.width + lane, lanes))
                store(best, lane, lanes, value)

    def write(self) -> None:
        for _, best, out in self.kept:
            for lane, lanes in whole_vectors(self.valid):
                store(out, self.start + lane, lanes, self.settle(load(best, lane, lanes), lane, lanes))
