"""Reductions, windows and normalizations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from relay_passes.ir.transfers.arithmetic import within
from relay_passes.ir.transfers.operands import (
    INF,
    SUM,
    Operands,
    Transfer,
    collapsed,
)
from relay_passes.ir.value_range import (
    Array,
    ValueRange,
    affine,
    array,
    common_divisor,
    lattice,
    one_lattice,
    point,
    repeated,
    union,
)

_FEW_COUNTS = 16


def _counted(o: Operands) -> ValueRange:
    return lattice(0, INF, 1, 0, "an index")


def _axes(o: Operands, rank: int) -> tuple[int, ...]:
    axis = o.attrs.axis
    if axis is None:
        return tuple(range(rank))
    return tuple(int(a) % rank for a in (axis if hasattr(axis, "__len__") else [axis]))


def _reduced(o: Operands, x: ValueRange) -> ValueRange:
    """x without the axes over which it is reduced, along which it is the same."""
    shape, axes = o.shape_of(0), _axes(o, len(o.shape_of(0)))
    x = collapsed(x, axes, len(shape))

    def change(a: Array) -> Array:
        if a.size == 1:
            return a.reshape(())
        a = a.reshape((1,) * (len(shape) - a.ndim) + a.shape)
        return a if len(o.shape) == len(shape) else a.squeeze(axes)

    return x.map_arrays(change)


def _count(o: Operands) -> int:
    shape = o.shape_of(0)
    return int(np.prod([shape[axis] for axis in _axes(o, len(shape))]))


def _reduce_sum(o: Operands) -> ValueRange:
    return repeated(_reduced(o, o[0]), _count(o))


def _mean(o: Operands) -> ValueRange:
    count = _count(o)
    return affine(repeated(_reduced(o, o[0]), count), array(1 / count), array(0))


def _reduce_extreme(o: Operands) -> ValueRange:
    return _reduced(o, o[0])


def _cumulative(o: Operands) -> ValueRange:
    x = collapsed(o[0])
    whole = one_lattice(x)
    low, high = (array(0 if (end == 0).all() else np.sign(end.sum()) * INF) for end in (x.low, x.high))
    low, high = np.minimum(low, x.low.min()), np.maximum(high, x.high.max())
    if whole is None:
        return ValueRange(low, high, tuple(point(0, cause) for cause in [x.zero_cause()] if cause))
    step = common_divisor(array(whole[0]), array(whole[1]))
    return lattice(low, high, step, 0, whole[2])


def _average(o: Operands) -> ValueRange:
    """The average of a window, of fewer elements at a border, or with zeros for those outside."""
    rank = len(o.shape)
    channels_last = str(getattr(o.attrs, "layout", "NCHW")).endswith("C")
    spatial = tuple(range(1, rank - 1)) if channels_last else tuple(range(2, rank))
    x = collapsed(o[0], spatial, rank)
    if getattr(o.attrs, "padding", None) is not None and any(int(p) for p in o.attrs.padding):
        x = union([x, lattice(0, 0, 0, 0, "a padding")]) if o.attrs.count_include_pad else x
    counts = _counts_in_windows(o, spatial)
    if len(counts) <= _FEW_COUNTS:
        return union([affine(repeated(x, count), array(1 / count), array(0)) for count in counts])
    if x.continuous:
        same = tuple(s for s in x.common if (s.step == 0).all())
        return replace(x, common=same)
    return _collapsed_sum(x)


def _counts_in_windows(o: Operands, axes: Sequence[int]) -> list[int]:
    """Of how many numbers the averages are: of fewer where a window reaches over what there is."""
    extents = [np.ones(1, int)]
    for i, axis in enumerate(axes):
        given, places = o.shape_of(0)[axis], np.arange(o.shape[axis])
        if hasattr(o.attrs, "pool_size"):
            before, after = (int(o.attrs.padding[i + half]) for half in (0, len(axes)))
            first = places * int(o.attrs.strides[i]) - before
            last = first + int(o.attrs.pool_size[i])
            if o.attrs.count_include_pad:
                extents.append(np.minimum(last, given + after) - first)
                continue
        else:  # adaptive
            first, last = places * given // len(places), -(-(places + 1) * given // len(places))
        extents.append(np.minimum(last, given) - np.maximum(first, 0))
    return sorted({math.prod(found) for found in itertools.product(*map(np.unique, extents))})


def _collapsed_sum(x: ValueRange) -> ValueRange:
    """Averages of any number of elements from a lattice: 0 may be one wherever both signs occur."""
    low, high = array(x.low.min()), array(x.high.max())
    zeros = (point(0, SUM),) if (low < 0 < high) or x.zero_cause() else ()
    return ValueRange(low, high, zeros)


def _max_pool(o: Operands) -> ValueRange:
    rank = len(o.shape)
    channels_last = str(getattr(o.attrs, "layout", "NCHW")).endswith("C")
    spatial = tuple(range(1, rank - 1)) if channels_last else tuple(range(2, rank))
    return collapsed(o[0], spatial, rank)


TRANSFERS: dict[str, Transfer] = {
    **dict.fromkeys(
        ("nn.layer_norm", "nn.group_norm", "nn.instance_norm", "nn.rms_norm", "nn.attention"),
        within(-INF, INF)),
    "argmax": _counted, "argmin": _counted, "argsort": _counted,
    "sum": _reduce_sum, "mean": _mean, "max": _reduce_extreme, "min": _reduce_extreme,
    "variance": within(0, INF), "std": within(0, INF), "cumsum": _cumulative,
    "nn.softmax": within(0, 1), "nn.log_softmax": within(-INF, 0),
    **{f"nn.avg_pool{n}d": _average for n in (1, 2, 3)},
    **{f"nn.adaptive_avg_pool{n}d": _average for n in (1, 2, 3)},
    **{f"nn.max_pool{n}d": _max_pool for n in (1, 2, 3)},
}  # fmt: skip
