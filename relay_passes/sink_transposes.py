"""Move every permutation towards the end of the network until it meets its inverse and both vanish.

An operator that works element by element may as well work on the tensor before its permutation; a reduction,
a pool, a padding, a slice, a repetition, another size of an image, a choice of positions, a concatenation, or
a reshape that splits axes or merges neighbours may too, with its axes renamed. What cannot is given the
permuted tensor after all. An image that a reshape puts together of pieces, as a pixel shuffle does, is put
together channels last.
After `mark_layers` this leaves one permutation at the input and, where the output is an image, one at the
end.

Requires: nothing.
Ensures: a permutation stands only where something needs the order that it makes.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.moves import RESHAPES
from relay_passes.ir.permutations import Order, moves_nothing, order_of, permuted, permuted_at_once, source_of
from relay_passes.ir.rewrite import (
    constant_of,
    constant_value,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    rewrite,
    shape_of,
)
from schedules.parts.epilogue import OPERATORS

_ALSO_ELEMENT_WISE = {  # in no kernel of ours
    "relax.sign", "relax.equal", "relax.not_equal", "relax.floor", "relax.ceil", "relax.log", "relax.square",
    "relax.power", "relax.nn.silu", "relax.nn.softplus",
}  # fmt: skip
_REDUCTIONS = {"relax.mean", "relax.sum", "relax.max", "relax.min"}
_POOLS = {"relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d"}
_POOL_MAKERS = {
    "relax.nn.max_pool2d": relax.op.nn.max_pool2d,
    "relax.nn.avg_pool2d": relax.op.nn.avg_pool2d,
    "relax.nn.adaptive_avg_pool2d": relax.op.nn.adaptive_avg_pool2d,
}
_NCHW_FROM_NHWC: Order = (0, 3, 1, 2)


def sink_transposes(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(rewrite(mod, _visit), _without_moves)


def _without_moves(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    """A permutation of axes of 1 moves nothing in memory, and is one only until all of them are sunk; so is
    one of what a reshape merges of a permuted tensor, whose pieces move once."""
    source = source_of(builder, value)
    if source is None:
        return value
    if (at_once := _merged_at_once(builder, *source)) is not None:
        return at_once
    before, order = source
    shape = shape_of(before)
    if not moves_nothing(shape, order):
        return value
    return relax.op.reshape(before, tuple(shape[axis] for axis in order))


def _merged_at_once(builder: relax.BlockBuilder, merged: relax.Expr, order: Order) -> relax.Expr | None:
    """A permutation of the merged axes of a permuted tensor, as one permutation before they are merged."""
    reshaped = made_by(builder, merged)
    if not is_call(reshaped, "relax.reshape") or source_of(builder, reshaped.args[0]) is None:
        return None
    groups = _factored(shape_of(reshaped.args[0]), shape_of(merged))
    if groups is None or any(len(outside) != 1 for _, outside in groups):
        return None
    axes = tuple(axis for i in order for axis in groups[i][0])
    pieces = permuted_at_once(builder, reshaped.args[0], axes)
    return relax.op.reshape(pieces, tuple(shape_of(merged)[i] for i in order))


def _inverse(order: Order) -> Order:
    return tuple(int(i) for i in np.argsort(order))


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if isinstance(value, relax.TupleGetItem):
        return _part(builder, var, value)
    if not is_call(value):
        return value
    name = value.op.name
    if name == "relax.permute_dims":
        return permuted_at_once(builder, value.args[0], order_of(value))
    if name == "relax.concat":
        return _concatenation(builder, value)
    sources = [source_of(builder, arg) for arg in value.args]
    order = next((s[1] for s in sources if s), None)
    if order is None:
        return value
    if name in OPERATORS or name in _ALSO_ELEMENT_WISE:
        return _elementwise(builder, value, sources, order)
    before = sources[0][0] if sources[0] else None
    if before is None:
        return value
    if name in _POOLS and order == _NCHW_FROM_NHWC and value.attrs.layout == "NCHW":
        kwargs = {
            f: getattr(value.attrs, f) for f in _fields(value.attrs) if f not in ("layout", "out_layout")
        }
        return _back(builder, _POOL_MAKERS[name](before, layout="NHWC", **kwargs), order)
    if name in _REDUCTIONS and value.attrs.axis is not None:
        return _reduction(builder, value, before, order)
    if name in RESHAPES:
        return _reshape(builder, value, shape_of(var), before, order)
    move = _MOVES.get(name)
    return value if move is None else move(builder, value, before, order)


def _fields(attrs: tvm.ir.Attrs) -> list[str]:
    return [name for name in type(attrs).__dict__ if not name.startswith("_") and name != "span"]


def _back(builder: relax.BlockBuilder, value: relax.Expr, order: Order) -> relax.Expr:
    return relax.op.permute_dims(builder.emit(value), list(order))


def _concatenation(builder: relax.BlockBuilder, value: relax.Call) -> relax.Expr:
    joined = made_by(builder, value.args[0])
    fields = joined.fields if isinstance(joined, relax.Tuple) else []
    sources = [source_of(builder, field) for field in fields]
    orders = {source[1] for source in sources if source}
    of_permuted = sum(_size(field) for field, source in zip(fields, sources, strict=True) if source)
    if len(orders) != 1 or 2 * of_permuted < sum(map(_size, fields)):
        return value
    (order,) = orders
    axis = order[int(value.attrs.axis) % len(order)]
    parts = [
        source[0] if source else permuted(builder, field, _inverse(order))
        for field, source in zip(fields, sources, strict=True)
    ]
    return _back(builder, relax.op.concat(parts, axis), order)


def _size(expr: relax.Expr) -> int:
    return int(np.prod(shape_of(expr)))


def _part(builder: relax.BlockBuilder, var: relax.Var, value: relax.TupleGetItem) -> relax.Expr:
    """One part of a split tensor is a slice of it."""
    split = made_by(builder, value.tuple_value)
    source = source_of(builder, split.args[0]) if is_call(split, "relax.split") else None
    if source is None:
        return value
    axis = int(split.attrs.axis) % len(source[1])
    extents = [int(part.shape[axis]) for part in split.ty.fields]
    begin = sum(extents[: value.index])
    moved = source[1][axis]
    return _back(
        builder,
        relax.op.strided_slice(source[0], [moved], [begin], [begin + extents[value.index]]),
        source[1],
    )


def _elementwise(builder: relax.BlockBuilder, value: relax.Call, sources: list, order: Order) -> relax.Expr:
    """All operands in the order from before the permutation; the result is permuted instead."""
    rank = len(order)
    if max(len(shape_of(arg)) for arg in value.args if is_tensor(arg)) != rank:
        return value
    inverse = _inverse(order)
    args: list[relax.Expr] = []
    for arg, source in zip(value.args, sources, strict=True):
        shape = shape_of(arg) if is_tensor(arg) else ()
        if source is not None and source[1] == order:
            args.append(source[0])
        elif not shape or int(np.prod(shape)) == 1:
            args.append(arg)
        else:
            full = (1,) * (rank - len(shape)) + shape
            if full != shape:
                arg = (
                    constant_of(constant_value(arg).reshape(full))
                    if is_constant(arg)
                    else builder.emit(relax.op.reshape(arg, full))
                )
            args.append(permuted(builder, arg, inverse))
    return _back(builder, relax.Call(value.op, args, value.attrs, value.ty_args), order)


def _reduction(
    builder: relax.BlockBuilder, value: relax.Call, before: relax.Expr, order: Order
) -> relax.Expr:
    rank = len(order)
    axes = [order[int(a) % rank] for a in value.attrs.axis]
    maker = getattr(relax.op, value.op.name.removeprefix("relax."))
    reduced = maker(before, axis=axes, keepdims=value.attrs.keepdims)
    if value.attrs.keepdims:
        return _back(builder, reduced, order)
    left = [a for a in order if a not in axes]  # what remains, in the order that is expected
    ranks = {a: i for i, a in enumerate(sorted(left))}
    final = tuple(ranks[a] for a in left)
    return reduced if final == tuple(range(len(final))) else _back(builder, reduced, final)


def _padding(builder: relax.BlockBuilder, value: relax.Call, before: relax.Expr, order: Order) -> relax.Expr:
    widths = [int(p) for p in value.attrs.pad_width]
    moved = [0] * len(widths)
    for axis, source in enumerate(order):
        moved[2 * source : 2 * source + 2] = widths[2 * axis : 2 * axis + 2]
    return _back(builder, relax.Call(value.op, [before, *value.args[1:]], _pad_attrs(moved, value)), order)


def _slice(builder: relax.BlockBuilder, value: relax.Call, before: relax.Expr, order: Order) -> relax.Expr:
    axes, *bounds = ([int(each.value) for each in argument.fields] for argument in value.args[1:])
    moved = [order[axis % len(order)] for axis in axes]
    inside = bool(value.attrs.assume_inbound)
    return _back(builder, relax.op.strided_slice(before, moved, *bounds, assume_inbound=inside), order)


def _tile(builder: relax.BlockBuilder, value: relax.Call, before: relax.Expr, order: Order) -> relax.Expr:
    repeats = [int(count) for count in value.attrs.repeats]
    if len(repeats) > len(order):
        return value
    whole = [1] * (len(order) - len(repeats)) + repeats
    return _back(builder, relax.op.tile(before, [whole[axis] for axis in _inverse(order)]), order)


def _take(builder: relax.BlockBuilder, value: relax.Call, before: relax.Expr, order: Order) -> relax.Expr:
    indices, axis = value.args[1], value.attrs.axis
    if axis is None or len(shape_of(indices)) != 1:
        return value
    moved = order[int(axis) % len(order)]
    return _back(builder, relax.op.take(before, indices, axis=moved, mode=value.attrs.mode), order)


def _resize(builder: relax.BlockBuilder, value: relax.Call, before: relax.Expr, order: Order) -> relax.Expr:
    layout = "".join(letter for _, letter in sorted(zip(order, str(value.attrs.layout), strict=True)))
    if layout not in ("NCHW", "NHWC"):
        return value
    kwargs = {f: getattr(value.attrs, f) for f in _fields(value.attrs) if f not in ("layout", "roi")}
    roi = tuple(map(float, value.attrs.roi))
    resized = relax.op.image.resize2d(before, value.args[1], roi, layout=layout, **kwargs)
    return _back(builder, resized, order)


def _flip(builder: relax.BlockBuilder, value: relax.Call, before: relax.Expr, order: Order) -> relax.Expr:
    return _back(builder, relax.op.flip(before, order[int(value.attrs.axis) % len(order)]), order)


def _reshape(
    builder: relax.BlockBuilder, value: relax.Call, new: tuple[int, ...], before: relax.Expr, order: Order
) -> relax.Expr:
    """Axes that are split, or merged with their neighbours, are so in whatever order the others are; the axes
    of an image are merged of any, channels last where the permuted tensor has these last."""
    old = shape_of(value.args[0])
    groups = _factored(old, new)
    if groups is None:
        return value
    # As their longest axes lie, so that a factor of a pixel shuffle does not decide.
    laid = sorted(groups, key=lambda group: order[max(group[0], key=lambda axis: old[axis])])
    kept = [axis for _, outside in laid for axis in outside]
    final = tuple(kept.index(axis) for axis in range(len(new)))
    places = [[order[axis] for axis in inside] for inside, _ in laid]
    if any(group != list(range(group[0], group[0] + len(group))) for group in places):
        if final != _NCHW_FROM_NHWC:
            return value
        before = permuted(builder, before, tuple(axis for group in places for axis in group))
    reshaped = relax.op.reshape(before, tuple(new[axis] for axis in kept))
    return reshaped if final == tuple(range(len(new))) else _back(builder, reshaped, final)


def _factored(old: Order, new: Order) -> list[tuple[list[int], list[int]]] | None:
    """Which neighbouring axes of one shape have the numbers of which of the other; None where an axis is
    empty."""
    if 0 in old or not old or not new:
        return None
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        inside, outside = [i], [j]
        before, after = old[i], new[j]
        i, j = i + 1, j + 1
        while before != after:
            if before < after:
                before *= old[i]
                inside.append(i)
                i += 1
            else:
                after *= new[j]
                outside.append(j)
                j += 1
        groups.append((inside, outside))
    groups[-1][0].extend(range(i, len(old)))  # axes of 1
    groups[-1][1].extend(range(j, len(new)))
    return groups


def _pad_attrs(widths: list[int], value: relax.Call) -> tvm.ir.Attrs:
    return relax.op.nn.pad(
        value.args[0], widths, pad_mode=value.attrs.pad_mode, pad_value=value.attrs.pad_value
    ).attrs


_MOVES = {
    "relax.nn.pad": _padding,
    "relax.strided_slice": _slice,
    "relax.tile": _tile,
    "relax.take": _take,
    "relax.flip": _flip,
    "relax.image.resize2d": _resize,
}
