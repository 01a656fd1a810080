"""Permutations of axes: what they are of, in which order, and two after one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from relay_passes.ir.rewrite import constant_of, constant_value, is_call, is_constant, made_by, shape_of

Order = tuple[int, ...]


def order_of(permutation: relax.Call) -> Order:
    """Of a `permute_dims`, axes counted from the front."""
    rank = len(shape_of(permutation.args[0]))
    axes = permutation.attrs.axes
    return tuple(int(a) % rank for a in axes) if axes is not None else tuple(reversed(range(rank)))


def moves_nothing(shape: Sequence[int], order: Order) -> bool:
    """Whether the numbers lie in memory as they lay before: only axes of 1 change their places."""
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved)


def source_of(builder: relax.BlockBuilder, expr: relax.Expr) -> tuple[relax.Expr, Order] | None:
    """(tensor before, order) where expr = permute_dims(tensor before, order)."""
    value = made_by(builder, expr)
    return (value.args[0], order_of(value)) if is_call(value, "relax.permute_dims") else None


def permuted(builder: relax.BlockBuilder, expr: relax.Expr, order: Order) -> relax.Expr:
    """expr with its axes in this order; the identity and a constant cost nothing."""
    if order == tuple(range(len(order))):
        return expr
    if is_constant(expr):
        return constant_of(np.ascontiguousarray(constant_value(expr).transpose(order)))
    return builder.emit(relax.op.permute_dims(expr, list(order)))


def permuted_at_once(builder: relax.BlockBuilder, expr: relax.Expr, outer: Sequence[int]) -> relax.Expr:
    """The same of a tensor that may be permuted already, by one permutation."""
    before, inner = source_of(builder, expr) or (expr, tuple(range(len(outer))))
    return permuted(builder, before, tuple(inner[axis] for axis in outer))


def turned_from(builder: relax.BlockBuilder, x: relax.Expr) -> relax.Expr | None:
    """The tensor [N, C, H, W], or [N, C, L], that was turned to the image x, if that is how x was made."""
    source, order = source_of(builder, x) or (None, ())
    return source if order in ((0, 2, 3, 1), (0, 2, 1)) else None
