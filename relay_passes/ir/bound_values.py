"""Which numbers each tensor of a network can hold, by interval reasoning through every operator.

`find_binary` asks what stands before a sign: what is never negative has a sign of 0 and 1, what is never 0
one of -1 and +1, and what is 0 as a matter of course one of three values. An operator that is not in the
table may give anything, 0 as a matter of course included: it is the reason, by name, why a sign behind it is
not computed in bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    shape_of,
)
from relay_passes.ir.transfers import TRANSFERS
from relay_passes.ir.transfers.operands import INF, Operands, collapsed, fields, moved, unknown
from relay_passes.ir.value_range import ValueRange, array, interval, lattice, point


class BoundValues:
    """Answers for the variables of one module, each found once."""

    def __init__(self) -> None:
        self._known: dict[relax.Var, ValueRange] = {}
        self.steps: dict[relax.Expr, Any] = {}  # what `two_valued.py` found of them
        self.few: dict[relax.Expr, Any] = {}  # likewise

    def know(self, var: relax.Var, found: ValueRange) -> None:
        """What is to be said of a variable, whatever computes it."""
        self._known[var] = found

    def of(self, builder: relax.BlockBuilder, expr: relax.Expr) -> ValueRange:
        """The numbers that this tensor can hold."""
        if not isinstance(expr, relax.Var):
            return _constant(expr)
        pending = [expr]
        while pending:  # networks are deeper than Python's stack
            var = pending[-1]
            value = made_by(builder, var)
            missing = [read for read in _read(builder, value) if read not in self._known]
            pending += missing
            if not missing:
                pending.pop()
                if var not in self._known:
                    self._known[var] = self._derive(builder, var, value)
        return self._known[expr]

    def _derive(self, builder: relax.BlockBuilder, var: relax.Var, value: Any) -> ValueRange:
        if value is None:
            return _input(var)
        if isinstance(value, relax.Var):
            return self._known[value]
        if isinstance(value, relax.TupleGetItem):
            return self._item(builder, value)
        if not is_call(value):
            return _constant(value)
        if not is_tensor(var):
            return unknown(value.op.name)  # a tuple: `_item` looks through it
        found = TRANSFERS.get(value.op.name, _unknown_result)(Operands(self.of, builder, var, value))
        return _wrapped(found, dtype_of(var), value.op.name)

    def _item(self, builder: relax.BlockBuilder, value: relax.TupleGetItem) -> ValueRange:
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return self.of(builder, made.fields[value.index])
        if is_call(made, "relax.split"):
            x, axis = made.args[0], int(made.attrs.axis)
            extents = [int(field.shape[axis]) for field in made.ty.fields]
            begin = sum(extents[: value.index])
            taken = range(begin, begin + extents[value.index])
            return moved(self.of(builder, x), shape_of(x), lambda a: np.take(a, taken, axis))
        if value.index == 0 and is_call(made, "relax.nn.dropout", "relax.topk"):
            kept = self.of(builder, made.args[0])
            return kept if is_call(made, "relax.nn.dropout") else collapsed(kept)
        if value.index == 0 and is_call(made, "relax.nn.batch_norm"):
            return interval(-INF, INF)
        return unknown(made.op.name if is_call(made) else "a tuple")


def _read(builder: relax.BlockBuilder, value: Any) -> list[relax.Var]:
    """The variables whose numbers have to be known first."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.TupleGetItem):
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return [field for field in [made.fields[value.index]] if isinstance(field, relax.Var)]
        return _read(builder, made)
    if not is_call(value):
        return []
    found = []
    for arg in value.args:
        tensors = fields(builder, arg)
        found += [e for e in tensors if isinstance(e, relax.Var) and is_tensor(e)]
    return found


def _input(var: relax.Var) -> ValueRange:
    dtype = dtype_of(var) if is_tensor(var) else ""
    cause = "the network's input"
    if dtype == "bool":
        return lattice(0, 1, 1, 0, cause)
    if "int" in dtype:
        limits = np.iinfo(dtype)
        return lattice(limits.min, limits.max, 1, 0, cause)
    return ValueRange(array(-INF), array(INF), (point(0, cause),))


def _wrapped(x: ValueRange, dtype: str, name: str) -> ValueRange:
    """What integers hold: any number of their type, where the result may lie outside of it and wraps."""
    if "int" not in dtype:
        return x
    limits = np.iinfo(dtype)
    if (x.low >= limits.min).all() and (x.high <= limits.max).all():
        return x
    return lattice(limits.min, limits.max, 1, 0, unknown(name).common[0].cause)


def _constant(expr: Any) -> ValueRange:
    values = constant_value(expr).astype(np.float64) if is_constant(expr) else None
    if values is None and isinstance(getattr(expr, "value", None), (int, float)):
        values = array(expr.value)
    if values is None or not values.size or np.isnan(values).any():
        return unknown("a value that is not a tensor")
    if values.size <= 4096 or (values == values.flat[0]).all():
        return ValueRange(values, values, (point(values, "a constant"),), (), False)
    zeros = (point(0, "a constant"),) if (values == 0).any() else ()
    return ValueRange(array(values.min()), array(values.max()), zeros)


def _unknown_result(o: Operands) -> ValueRange:
    return unknown(o.call.op.name)
