"""What a transfer function is given, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.rewrite import constant_value, dtype_of, is_constant, made_by, shape_of
from relay_passes.ir.value_range import Array, ValueRange, array, lattice, one_lattice, point

INF = float("inf")
SUM = "a sum of whole steps"
RECTIFIER = "a rectifier"
Transfer = Callable[["Operands"], ValueRange]


def fields(builder: relax.BlockBuilder, arg: relax.Expr) -> list[relax.Expr]:
    """The tensors of an argument that is one, or a tuple of them."""
    made = made_by(builder, arg)
    return list(made.fields) if isinstance(made, relax.Tuple) else [arg]


class Operands:
    """One call: what its operands are and which numbers they hold."""

    def __init__(
        self,
        numbers_of: Callable[[relax.BlockBuilder, relax.Expr], ValueRange],
        builder: relax.BlockBuilder,
        var: relax.Var,
        call: relax.Call,
    ):
        self.builder, self.call, self.attrs = builder, call, call.attrs
        self.shape, self.dtype = shape_of(var), dtype_of(var)
        self.numbers_of = numbers_of

    def __getitem__(self, i: int) -> ValueRange:
        return self.numbers_of(self.builder, self.call.args[i])

    def value(self, i: int) -> Any:
        """What computes an operand."""
        return made_by(self.builder, self.call.args[i])

    def shape_of(self, i: int) -> tuple[int, ...]:
        return shape_of(self.call.args[i])

    def number(self, i: int) -> Array | None:
        """A constant operand as float64; None for another."""
        arg = self.call.args[i] if i < len(self.call.args) else None
        if is_constant(arg):
            return constant_value(arg).astype(np.float64)
        value = getattr(arg, "value", None)
        return array(value) if isinstance(value, (int, float)) else None

    def parts(self, i: int) -> list[tuple[ValueRange, tuple[int, ...]]]:
        """Of an operand that is a tuple of tensors."""
        tensors = fields(self.builder, self.call.args[i])
        return [(self.numbers_of(self.builder, tensor), shape_of(tensor)) for tensor in tensors]


def unknown(name: str) -> ValueRange:
    cause = f"what {name.removeprefix('relax.').removeprefix('nn.')} gives"
    return ValueRange(array(-INF), array(INF), (point(0, cause),))


def shrunk(a: Array) -> Array:
    """Without repeating what is the same along an axis."""
    for axis in range(a.ndim):
        first = a.take([0], axis)
        if a.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, a.shape), a, equal_nan=True):
            a = first
    return a


def moved(x: ValueRange, shape: tuple[int, ...], move: Callable[[Array], Array]) -> ValueRange:
    """move: the operator on a full array of `shape`."""

    def change(a: Array) -> Array:
        return a.reshape(()) if a.size == 1 else shrunk(move(np.broadcast_to(a, shape)))

    return x.map_arrays(change)


def collapsed(x: ValueRange, axes: tuple[int, ...] | None = None, rank: int = 0) -> ValueRange:
    """The same for every element along these axes, or along all: bounds that hold for each of them."""
    arrays = [x.low, x.high, *(a for s in (*x.common, *x.accidental) for a in (s.step, s.offset))]
    ranks = [(1,) * (rank - a.ndim) + a.shape for a in arrays]
    if axes is not None and all(shape[axis] == 1 for shape in ranks for axis in axes):
        return x
    if all(a.size == 1 for a in arrays):
        return x.map_arrays(lambda a: a.reshape(()))
    whole = one_lattice(x)
    low, high = array(x.low.min()), array(x.high.max())
    if whole is not None:
        accidental = (point(0, whole[2]),) if x.accidental else ()
        return replace(lattice(low, high, *whole), accidental=accidental)
    cause = x.zero_cause()
    return ValueRange(low, high, () if cause is None else (point(0, cause),))
