"""The largest and the smallest of each channel over the pixels of an image, or of a row, kept beside a kernel
until the last tile is done, and written then: the image itself never is.

Where they are those of the sums, and all pixels settle these alike, the sums are kept as they are counted,
and a vector holds four times as many. Everything else is kept as the epilogue gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import flat, load, spread, store, whole_vectors
from schedules.parts.epilogue import Extreme, Output

_COMBINE = {"max": (tirx.max, tirx.min_value), "min": (tirx.min, tirx.max_value)}
_OPPOSITE: dict[Extreme, Extreme] = {"max": "min", "min": "max"}


@dataclass(frozen=True, kw_only=True)
class Unsettled:
    """Sums that are kept as they are counted. settle(sums, lane, lanes): what is written for a vector of
    them; falls: whether that falls as a sum rises."""

    dtype: str
    falls: bool
    settle: Callable[[Any, Any, int], Any]


class Extremes:
    """Those of one block of channels in one image or row.

    outputs: of the kernel, with their buffers, of which some are extremes; start: where in these, flat, the
    block begins; valid, width: its channels, and its lanes; sums: None where values are kept.
    """

    def __init__(
        self,
        outputs: Sequence[tuple[Output, tirx.Buffer]],
        start: Any,
        valid: int,
        width: int,
        sums: Unsettled | None,
    ):
        self.start, self.valid, self.sums = start, valid, sums
        self.kept = {}
        for i, (output, buffer) in enumerate(outputs):
            if output.extreme:
                dtype = sums.dtype if sums else output.dtype
                form = _OPPOSITE[output.extreme] if sums and sums.falls else output.extreme
                combine, neutral = _COMBINE[form]
                best = T.alloc_buffer((width,), dtype, scope="local")
                for lane, lanes in whole_vectors(width):
                    store(best, lane, lanes, spread(neutral(dtype), lanes))
                self.kept[i] = combine, best, flat(buffer)

    def take(self, sums: tirx.Buffer, pixels: int) -> None:
        """The sums of a tile."""
        for combine, best, _ in self.kept.values():
            width = int(best.shape[0])
            for lane, lanes in whole_vectors(width):
                value = load(best, lane, lanes)
                for m in range(pixels):
                    value = combine(value, load(sums, m * width + lane, lanes))
                store(best, lane, lanes, value)

    def keep(self, i: int, y: Any, x: Any, lane: Any, lanes: int, value: Any) -> None:
        """Channels `lane` to `lane + lanes` of one pixel of output i."""
        combine, best, _ = self.kept[i]
        store(best, lane, lanes, combine(load(best, lane, lanes), value))

    def write(self) -> None:
        for _, best, out in self.kept.values():
            for lane, lanes in whole_vectors(self.valid):
                value = load(best, lane, lanes)
                value = self.sums.settle(value, lane, lanes) if self.sums else value
                store(out, self.start + lane, lanes, value)
