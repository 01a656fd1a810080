"""x * a * b -> x * (a * b), x + a + b -> x + (a + b), for constants a, b and no other reader between.

One constant less per channel in the artifact, and one operation less per element. Factors of different axes
(XNOR-Net++ has one for each channel, row and column) stay apart: together they would be as large as the
tensor. Those of the same axis meet across them, x * a * b * c -> x * (a * c) * b. The product is rounded
once more or less than in the source network, so this comes after thresholds were folded, which keep the
source's order.

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

    def goes_on(var: relax.Var) -> bool:
        """Whether all that becomes of it is the same operator with another constant."""
        if len(readers.get(var, ())) != 1:  # what is returned has a reader besides
            return False
        (reader,) = readers[var]
        if not is_call(reader.value, old[var].op.name):
            return False
        source, constant = _operands(reader.value)
        return constant is not None and source.same_as(var)

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if not is_call(value, "relax.multiply", "relax.add") or goes_on(var):
            return value
        # The bindings of a chain are the same in both modules but for the last.
        constants: list[np.ndarray] = []
        base: relax.Expr = var
        before: relax.Expr = var
        link: relax.Expr | None = value
        while is_call(link, value.op.name) and (not constants or goes_on(before)):
            source, constant = _operands(link)
            if constant is None or not isinstance(source, relax.Var):
                break
            constants.insert(0, constant_value(constant))
            base, before = source, _operands(old[before])[0]
            link = made_by(builder, base)
        merged = _merged(value.op.name, constants)
        if len(merged) == len(constants):
            return value
        for constant in merged:
            made = relax.Call(value.op, [base, relax.const(constant)], value.attrs, value.ty_args)
            base = builder.emit(made)
        return base

    return rewrite(mod, visit)


def _merged(operator: str, constants: list[np.ndarray]) -> list[np.ndarray]:
    """Each with the nearest before it that it can be merged with. A factor passes others only where no
    product on the way comes near the end of the range of a float by it."""
    found: list[np.ndarray] = []
    for constant in constants:
        for i in reversed(range(len(found))):
            merged = _combined(operator, found[i], constant)
            if merged is not None and (i == len(found) - 1 or _mild(constant)):
                found[i] = merged
                break
        else:
            found.append(constant)
    return found


def _mild(constant: np.ndarray) -> bool:
    size = np.abs(constant[constant != 0])
    return bool(((size > 2.0**-24) & (size < 2.0**24)).all())


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
