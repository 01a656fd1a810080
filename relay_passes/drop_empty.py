"""Tensors without an element, as a slice of nothing leaves them -> constants, which nothing computes.

TVM schedules no loop of no rounds.

Requires: layers are marked.
Ensures: no operator makes a tensor without an element, and none reads one but by its shape.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.rewrite import (
    bindings,
    constant_of,
    dtype_of,
    is_call,
    is_tensor,
    made_by,
    rewrite,
    shape_of,
)

# What comes of nothing; PyTorch knows no largest of nothing, but whether any or all of it are true.
_OF_NOTHING = {
    **dict.fromkeys(("relax.sum", "relax.matmul", "bibench.matmul", "bibench.product", "relax.max"), 0),
    **dict.fromkeys(("relax.prod", "relax.min"), 1),
}


def drop_empty(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit) if any(_is_empty(b.var) for b in bindings(mod)) else mod


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if _is_empty(var):
        return constant_of(np.zeros(shape_of(var), dtype_of(var)))
    if is_call(value, *_OF_NOTHING) and any(map(_is_empty, value.args)):
        return constant_of(np.full(shape_of(var), _OF_NOTHING[value.op.name], dtype_of(var)))
    if not is_call(value, "relax.concat"):
        return value
    filled = [field for field in made_by(builder, value.args[0]).fields if not _is_empty(field)]
    return relax.op.concat(filled, int(value.attrs.axis)) if len(filled) > 1 else filled[0]


def _is_empty(expr: relax.Expr) -> bool:
    return is_tensor(expr) and 0 in shape_of(expr)
