"""Which taps of a window lie inside the image, where its border is not kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from tvm import tirx

from schedules.geometry import Convolution


def taps_inside(position: Any, conv: Convolution, axis: int) -> tuple[Any, Any]:
    """First and end of them, of row (axis 0) or column (axis 1) `position` of the outputs."""
    extent, dilation = (conv.height, conv.width)[axis], conv.dilation[axis]
    begin = position * conv.strides[axis] - conv.padding[axis]
    first = tirx.max(0, (dilation - 1 - begin) // dilation)
    return first, tirx.min(conv.kernel[axis], (extent - 1 - begin) // dilation + 1)


Meets = Callable[[int, int], bool]
"""meets(m, tap): whether a column of taps of pixel m lies inside the image."""


@dataclass(frozen=True)
class Strips:
    """`count` strips of a row of outputs, one after the other from column `first` on, each of `pixels`.

    meets: None where all taps lie inside, or in a border that is kept in memory."""

    first: int
    pixels: int
    count: int
    meets: Meets | None = None


def whole_strips(conv: Convolution, pixels: int) -> list[Strips]:
    """Of a row whose taps are all inside, or in a border that is kept in memory."""
    count, rest = divmod(conv.out_width, pixels)
    found = [Strips(0, pixels, count), Strips(count * pixels, rest, 1)]
    return [strips for strips in found if strips.count and strips.pixels]


def cut_strips(conv: Convolution, pixels: int) -> list[Strips]:
    """Of any row; those that reach beyond the image come one by one."""
    found: list[Strips] = []
    for strips in whole_strips(conv, pixels):
        for i in range(strips.count):
            first = strips.first + i * strips.pixels
            meets, columns = _meeting(conv, first), product(range(strips.pixels), range(conv.kernel[1]))
            inner = all(meets(m, tap) for m, tap in columns)
            before = found[-1] if found else None
            if inner and before and (before.pixels, before.meets) == (strips.pixels, None):
                found[-1] = replace(before, count=before.count + 1)
            else:
                found.append(Strips(first, strips.pixels, 1, None if inner else meets))
    return found


def _meeting(conv: Convolution, first: int) -> Meets:
    def meets(m: int, tap: int) -> bool:
        x = (first + m) * conv.strides[1] + tap * conv.dilation[1] - conv.padding[1]
        return 0 <= x < conv.width

    return meets
