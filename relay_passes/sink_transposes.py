"""Move every permutation towards the end of the network until it meets its inverse and both vanish.

An operator that works element by element may as well work on the tensor before its permutation; a reduction,
a pool, a padding or a concatenation may too, with its axes renamed. What cannot is given the permuted tensor
after all. After `mark_layers` this leaves one permutation at the input and, where the output is an image, one
at the end.

Requires: nothing.
Ensures: a permutation stands only where something needs the order that it makes.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.rewrite import (
    constant_value,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    rewrite,
    shape_of,
)
from schedules.parts.epilogue import OPERATORS

Order = tuple[int, ...]

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
    return rewrite(mod, _visit)


def _source(builder: relax.BlockBuilder, expr: relax.Expr) -> tuple[relax.Expr, Order] | None:
    """(tensor before, order) where expr = permute_dims(tensor before, order)."""
    value = made_by(builder, expr)
    if not is_call(value, "relax.permute_dims"):
        return None
    rank = len(shape_of(expr))
    axes = value.attrs.axes
    order = tuple(int(a) % rank for a in axes) if axes is not None else tuple(reversed(range(rank)))
    return value.args[0], order


def _inverse(order: Order) -> Order:
    return tuple(int(i) for i in np.argsort(order))


def _permuted(builder: relax.BlockBuilder, expr: relax.Expr, order: Order) -> relax.Expr:
    """expr with its axes in this order; the identity and a constant cost nothing."""
    if order == tuple(range(len(order))):
        return expr
    if is_constant(expr):
        return relax.const(np.ascontiguousarray(constant_value(expr).transpose(order)))
    shape = shape_of(expr)
    if [a for a in order if shape[a] != 1] == [a for a in range(len(shape)) if shape[a] != 1]:
        return builder.emit(relax.op.reshape(expr, tuple(shape[a] for a in order)))  # nothing moves in memory
    return builder.emit(relax.op.permute_dims(expr, list(order)))


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value):
        return value
    name = value.op.name
    if name == "relax.permute_dims":
        return _permutation(builder, value)
    if name == "relax.concat":
        return _concatenation(builder, value)
    sources = [_source(builder, arg) for arg in value.args]
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
    if name == "relax.nn.pad":
        return _padding(builder, value, before, order)
    return value


def _fields(attrs: tvm.ir.Attrs) -> list[str]:
    return [name for name in type(attrs).__dict__ if not name.startswith("_") and name != "span"]


def _back(builder: relax.BlockBuilder, value: relax.Expr, order: Order) -> relax.Expr:
    return relax.op.permute_dims(builder.emit(value), list(order))


def _concatenation(builder: relax.BlockBuilder, value: relax.Call) -> relax.Expr:
    joined = made_by(builder, value.args[0])
    fields = joined.fields if isinstance(joined, relax.Tuple) else []
    sources = [s for s in (_source(builder, field) for field in fields) if s]
    orders = {order for _, order in sources}
    if len(sources) < len(fields) or len(orders) != 1:
        return value
    (order,) = orders
    axis = order[int(value.attrs.axis) % len(order)]
    return _back(builder, relax.op.concat([before for before, _ in sources], axis), order)


def _permutation(builder: relax.BlockBuilder, value: relax.Call) -> relax.Expr:
    rank = len(shape_of(value.args[0]))
    axes = value.attrs.axes
    outer = tuple(int(a) % rank for a in axes) if axes is not None else tuple(reversed(range(rank)))
    source = _source(builder, value.args[0])
    if source is None:
        return _permuted(builder, value.args[0], outer)
    before, inner = source
    return _permuted(builder, before, tuple(inner[a] for a in outer))


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
                    relax.const(constant_value(arg).reshape(full))
                    if is_constant(arg)
                    else builder.emit(relax.op.reshape(arg, full))
                )
            args.append(_permuted(builder, arg, inverse))
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


def _pad_attrs(widths: list[int], value: relax.Call) -> tvm.ir.Attrs:
    return relax.op.nn.pad(
        value.args[0], widths, pad_mode=value.attrs.pad_mode, pad_value=value.attrs.pad_value
    ).attrs
