"""Reshapes of a reshape -> one reshape, which is a view and no kernel.

TVM fuses one after another into a kernel that copies.

Requires: nothing.
Ensures: no reshape, nor what is one by another name, reads another; none has its operand's shape.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.moves import RESHAPES
from relay_passes.ir.permutations import moves_nothing, order_of
from relay_passes.ir.rewrite import is_call, made_by, rewrite, shape_of


def merge_reshapes(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not _is_reshape(value):
        return value
    source = value.args[0]
    made = made_by(builder, source)
    if is_call(made, "relax.reshape"):
        source = made.args[0]
    shape = shape_of(var)
    return source if shape == shape_of(source) else relax.op.reshape(source, shape)


def _is_reshape(value: relax.Expr) -> bool:
    """Whether the elements lie as they lay before; a transpose may have moved axes of extent 1."""
    if is_call(value, "relax.permute_dims"):
        return moves_nothing(shape_of(value.args[0]), order_of(value))
    return is_call(value, *RESHAPES)
