"""Elements that go to other places, and what stands between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from relay_passes.ir.moves import WRITES, replaces
from relay_passes.ir.rewrite import made_by
from relay_passes.ir.transfers.operands import (
    INF,
    Operands,
    Transfer,
    collapsed,
    moved,
    shrunk,
    unknown,
)
from relay_passes.ir.value_range import (
    Array,
    ValueRange,
    array,
    lattice,
    point,
    union,
)


def _reshape(o: Operands) -> ValueRange:
    return moved(o[0], o.shape_of(0), lambda a: a.reshape(o.shape))


def _permute_dims(o: Operands) -> ValueRange:
    axes = o.attrs.axes
    order = None if axes is None else [int(axis) for axis in axes]
    return moved(o[0], o.shape_of(0), lambda a: a.transpose(order))


def _broadcast_to(o: Operands) -> ValueRange:
    return moved(o[0], o.shape_of(0), lambda a: np.broadcast_to(a, o.shape))


def _strided_slice(o: Operands) -> ValueRange:
    given = [made_by(o.builder, arg) for arg in o.call.args[1:]]
    numbers = [[int(field.value) for field in tuple_.fields] for tuple_ in given]
    axes, begins, ends = numbers[:3]
    steps = numbers[3] if len(numbers) > 3 else [1] * len(axes)
    shape = o.shape_of(0)
    index = [slice(None)] * len(shape)
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        extent = shape[axis]
        begin, end = (max(at + extent, -1) if at < 0 else at for at in (begin, end))
        index[axis] = slice(begin, None if end < 0 else end, step)
    sliced = moved(o[0], shape, lambda a: a[tuple(index)])
    fits = all(np.broadcast_shapes(a.shape, o.shape) == o.shape for a in (sliced.low, sliced.high))
    return sliced if fits else collapsed(o[0])


def _take(o: Operands) -> ValueRange:
    index = o.number(1)
    if index is None or o.attrs.axis is None:
        return collapsed(o[0])
    axis = int(o.attrs.axis)
    return moved(o[0], o.shape_of(0), lambda a: np.take(a, index.astype(int), axis))


def _flip(o: Operands) -> ValueRange:
    return moved(o[0], o.shape_of(0), lambda a: np.flip(a, int(o.attrs.axis)))


def _joined(o: Operands, join: Callable[[list[Array]], Array]) -> ValueRange:
    """Lattices of the parts are paired in order; where a part has fewer, the rest is absent there."""
    parts = o.parts(0)

    def together(arrays: list[Array | None]) -> Array:
        full = [
            np.broadcast_to(array(np.nan) if a is None else a, shape)
            for a, (_, shape) in zip(arrays, parts, strict=True)
        ]
        return shrunk(join(full))

    def lattices(kind: str) -> tuple:
        held = [getattr(x, kind) for x, _ in parts]
        rows = [[own[i] if i < len(own) else None for own in held] for i in range(max(map(len, held)))]
        result = []
        for row in rows:
            cause = next(s.cause for s in row if s is not None)
            steps = together([array(0) if s is None else s.step for s in row])
            offset = together([None if s is None else s.offset for s in row])
            result.append(replace(point(offset, cause), step=steps))
        return tuple(result)

    low, high = together([x.low for x, _ in parts]), together([x.high for x, _ in parts])
    chance = any(x.continuous for x, _ in parts)
    return ValueRange(low, high, lattices("common"), lattices("accidental"), chance)


def _concat(o: Operands) -> ValueRange:
    return _joined(o, lambda arrays: np.concatenate(arrays, int(o.attrs.axis or 0)))


def _stack(o: Operands) -> ValueRange:
    return _joined(o, lambda arrays: np.stack(arrays, int(o.attrs.axis or 0)))


def _pad(o: Operands) -> ValueRange:
    x, shape = o[0], o.shape_of(0)
    widths = [int(p) for p in o.attrs.pad_width]
    pairs = list(zip(widths[0::2], widths[1::2], strict=True))
    pairs = [(max(a, 0), max(b, 0)) for a, b in pairs]
    padded = moved(x, shape, lambda a: np.pad(a, pairs, "edge"))
    if any(np.broadcast_shapes(a.shape, o.shape) != o.shape for a in (padded.low, padded.high)):
        padded = collapsed(x)
    if str(o.attrs.pad_mode) != "constant":
        return padded if all(a.size == 1 for a in (padded.low, padded.high)) else collapsed(padded)
    value = float(o.attrs.pad_value)
    return union([padded, lattice(value, value, 0, value, "a padding")])


def _scattered(o: Operands) -> ValueRange:
    """Some elements of the first operand, replaced by those of another, or joined with them."""
    if not replaces(o.call):
        return unknown(o.call.op.name)
    return union([collapsed(o[0]), collapsed(o[WRITES[o.call.op.name]])])


def _masked(o: Operands) -> ValueRange:
    """tril, triu: what is kept, and 0."""
    return union([collapsed(o[0]), lattice(0, 0, 0, 0, o.call.op.name.removeprefix("relax."))])


def _same(o: Operands) -> ValueRange:
    return o[0]


def _anywhere(o: Operands) -> ValueRange:
    """Elements of the first operand, wherever they went."""
    return collapsed(o[0])


def _resize(o: Operands) -> ValueRange:
    x = collapsed(o[0])
    if "nearest" in str(o.attrs.method):
        return x
    if "linear" not in str(o.attrs.method):  # a cubic leaves the interval
        x = replace(x, low=array(-INF), high=array(INF))
    # Halfway between -1 and 1 lies 0.
    halves = [point(0.0, "an interpolation") for s in x.common if (s.step != 0).any() or len(x.common) > 1]
    return replace(x, common=(*x.common, *halves[:1]), continuous=True)


def _filled(o: Operands) -> ValueRange:
    return collapsed(o[len(o.call.args) - 1])


TRANSFERS: dict[str, Transfer] = {
    **dict.fromkeys(("reshape", "expand_dims", "squeeze", "flatten", "nn.batch_flatten"), _reshape),
    **dict.fromkeys(
        ("tile", "repeat", "gather_elements", "gather_nd", "index_tensor", "dynamic_strided_slice", "sort",
         "nn.pixel_shuffle", "roll"), _anywhere),
    **dict.fromkeys(("scatter_elements", "scatter_nd", "index_put", "slice_scatter"), _scattered),
    **dict.fromkeys(("tril", "triu"), _masked),
    "permute_dims": _permute_dims, "broadcast_to": _broadcast_to, "strided_slice": _strided_slice,
    "take": _take, "flip": _flip, "concat": _concat, "stack": _stack, "nn.pad": _pad,
    "image.resize2d": _resize, "image.resize3d": _resize, "nn.dropout": _same, "full": _filled,
}  # fmt: skip
