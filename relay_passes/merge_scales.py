"""x * a * b -> x * (a * b), x + a + b -> x + (a + b), for constants a, b and no other reader between.

One constant less per channel in the artifact, and one operation less per element. Factors of different axes
(XNOR-Net++ has one for each channel, row and column) stay apart: together they would be as large as the
tensor. The product is rounded once more or less than in the source network, so this comes after thresholds
were folded, which keep the source's order.

Requires: that thresholds are folded.
Ensures: the same values but for one rounding.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.rewrite import constant_value, definitions, is_call, is_constant, made_by, rewrite, users


def merge_scales(mod: tvm.IRModule) -> tvm.IRModule:
    readers, old = users(mod), definitions(mod)

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if not is_call(value, "relax.multiply", "relax.add"):
            return value
        inner_var, outer = _operands(value)
        inner = made_by(builder, inner_var)
        if outer is None or not is_call(inner, value.op.name) or len(readers[_operands(old[var])[0]]) > 1:
            return value
        source, constant = _operands(inner)
        if constant is None or not isinstance(source, relax.Var):
            return value
        merged = _combined(value.op.name, constant_value(constant), constant_value(outer))
        if merged is None:
            return value
        return relax.Call(value.op, [source, relax.const(merged)], value.attrs, value.ty_args)

    return rewrite(mod, visit)


def _combined(operator: str, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The product or sum; None where it is larger than both, or beyond the range of a float, to which an
    activation may bring it back."""
    multiply = operator == "relax.multiply"
    with np.errstate(all="ignore"):
        merged = a * b if multiply else a + b
    if merged.size > max(a.size, b.size) or not np.isfinite(merged).all():
        return None
    if multiply and merged.dtype.kind == "f":
        small = np.abs(merged) < np.finfo(merged.dtype).tiny
        if (small & (a != 0) & (b != 0)).any():
            return None
    return merged


def _operands(value: relax.Call) -> tuple[relax.Expr, relax.Expr | None]:
    """(what is not a constant, the constant)."""
    left, right = value.args
    if is_constant(left):
        left, right = right, left
    return left, right if is_constant(right) else None
