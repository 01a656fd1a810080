"""x^n for a small whole n -> products, which are element by element and so can be fused.

LLVM calls a function for each power, number by number.

Requires: that what is binary was found; of a product of two factors less is known than of a square.
Ensures: no `square`, and no `power` of floats with one exponent from 1 to `MOST`, is left.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.rewrite import constant_value, dtype_of, is_call, is_constant, rewrite, shape_of

MOST = 8


def expand_powers(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    exponent = _exponent(value)
    if exponent is None:
        return value
    square, product = value.args[0], None
    while True:
        if exponent % 2:
            product = square if product is None else builder.emit(relax.op.multiply(product, square))
        exponent //= 2
        if not exponent:
            return product
        square = builder.emit(relax.op.multiply(square, square))


def _exponent(value: relax.Expr) -> int | None:
    if is_call(value, "relax.square"):
        return 2
    if not is_call(value, "relax.power"):
        return None
    x, power = value.args
    if dtype_of(x) != "float32" or not is_constant(power):
        return None
    exponent = constant_value(power)
    if exponent.size != 1 or exponent.ndim > len(shape_of(x)):
        return None
    number = float(exponent.reshape(()))
    return int(number) if number in range(1, MOST + 1) else None
