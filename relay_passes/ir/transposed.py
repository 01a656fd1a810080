"""A transposed convolution as ordinary ones, one for each place of an output pixel between two input pixels.

With stride s and padding p, input pixel i meets tap k at output pixel y = s i - p + k. Of the pixels with
y + p = s q + r, the taps k = r + s j are met by i = q - j: an ordinary convolution of stride 1 with every
s-th tap, backwards, at the places q. The s * s results, side by side, are the output: a pixel shuffle.

Each of them is computed for the same places q, from `first` to `last`, which is what lets them lie side by
side, and at least so many that no padding of theirs is negative; what is too much is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import relax

from relay_passes.ir.operators import Phase, Transposed
from relay_passes.ir.rewrite import dtype_of
from schedules.geometry import Convolution


@dataclass(frozen=True)
class Part:
    """taps: of the whole kernel, in the order of the part's own; conv is None where the part has none."""

    conv: Convolution | None
    phase: Phase
    taps: tuple[slice, slice]


@dataclass(frozen=True)
class _Axis:
    """Of rows, or of columns: places first to last, and for each rest r the taps and the padding."""

    first: int
    last: int
    counts: tuple[int, ...]  # taps of each rest
    padding: tuple[tuple[int, int], ...]
    taps: tuple[slice, ...]


def _axis(extent: int, out: int, kernel: int, stride: int, before: int) -> _Axis:
    counts = tuple(max(0, -(-(kernel - r) // stride)) for r in range(stride))
    first = min(before // stride, *(count - 1 for count in counts if count), kernel)
    last = max((out - 1 + before) // stride, extent - 1)
    padding = tuple((count - 1 - first, last - (extent - 1)) for count in counts)
    # r + s (count - 1), ..., r + s, r
    taps = tuple(slice(r + stride * (count - 1), None, -stride) for r, count in enumerate(counts))
    return _Axis(first, last, counts, padding, taps)


def parts(layer: Transposed) -> list[Part]:
    """Row by row; places of the output that have no tap at all have no convolution."""
    axes = _axes(layer)
    rows, columns = axes
    found = []
    for r, height in enumerate(rows.counts):
        for c, width in enumerate(columns.counts):
            (top, bottom), (left, right) = rows.padding[r], columns.padding[c]
            conv = Convolution(
                layer.batch,
                layer.height,
                layer.width,
                layer.channels,
                layer.out_channels,
                kernel=(height, width),
                padding=(top, left, bottom, right),
            )
            start = (
                rows.first * layer.strides[0] + r - layer.padding[0],
                columns.first * layer.strides[1] + c - layer.padding[1],
            )
            phase = Phase(start=start, step=layer.strides, last=(r, c))
            found.append(Part(conv if height and width else None, phase, (rows.taps[r], columns.taps[c])))
    return found


def _axes(layer: Transposed) -> tuple[_Axis, _Axis]:
    out = layer.out_shape[1:3]
    extents = layer.height, layer.width
    rows, columns = (
        _axis(extents[i], out[i], layer.kernel[i], layer.strides[i], layer.padding[i]) for i in (0, 1)
    )
    return rows, columns


def shuffled(builder: relax.BlockBuilder, layer: Transposed, sums: Sequence[relax.Expr | None]) -> relax.Expr:
    """[N, OH, OW, O] from the results of `parts`, all int32 or all float32; None where there is none."""
    rows, columns = _axes(layer)
    op, (down, across) = relax.op, layer.strides
    places = rows.last - rows.first + 1, columns.last - columns.first + 1
    shape = (layer.batch, *places, layer.out_channels)
    dtype = next((dtype_of(part) for part in sums if part is not None), "int32")
    filled = [relax.const(np.zeros(shape, dtype)) if part is None else part for part in sums]

    def joined(tensors: list[relax.Expr], axis: int) -> relax.Expr:
        return builder.emit(op.concat(tensors, axis)) if len(tensors) > 1 else tensors[0]

    lines = []
    for r in range(down):
        line = joined(filled[r * across : (r + 1) * across], 3)
        wide = (layer.batch, places[0], places[1] * across, layer.out_channels)
        lines.append(builder.emit(op.reshape(line, wide)) if across > 1 else line)
    whole = joined(lines, 2)
    if down > 1:
        extents = places[0] * down, places[1] * across
        whole = builder.emit(op.reshape(whole, (layer.batch, *extents, layer.out_channels)))
    begin = [-part for part in _start(layer, rows, columns)]
    end = [b + extent for b, extent in zip(begin, layer.out_shape[1:3], strict=True)]
    if begin != [0, 0] or end != [places[0] * down, places[1] * across]:
        whole = builder.emit(op.strided_slice(whole, [1, 2], begin, end))
    return whole


def as_it_was(
    builder: relax.BlockBuilder, x: relax.Expr, weights: np.ndarray, layer: Transposed
) -> relax.Expr:
    """TVM's own operator between two permutations; weights: float32 [O, KH, KW, C]."""
    top, left, bottom, right = layer.padding
    more = max(0, -bottom), max(0, -right)
    turned = builder.emit(relax.op.permute_dims(x, [0, 3, 1, 2]))
    taps = relax.const(np.ascontiguousarray(weights.transpose(3, 0, 1, 2)))
    image = relax.op.nn.conv2d_transpose(
        turned,
        taps,
        strides=layer.strides,
        padding=(top, left, bottom + more[0], right + more[1]),
        output_padding=more,
    )
    return relax.op.permute_dims(builder.emit(image), [0, 2, 3, 1])


def _start(layer: Transposed, rows: _Axis, columns: _Axis) -> tuple[int, int]:
    """The output pixel of the first place, before the output or at its begin."""
    return (
        rows.first * layer.strides[0] - layer.padding[0],
        columns.first * layer.strides[1] - layer.padding[1],
    )
