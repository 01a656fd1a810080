"""Truths: the opposite of a comparison, as it is for NaN too, and numbers that are made of them."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T


def opposite(x: tirx.PrimExpr) -> tirx.PrimExpr:
    """Not x, a truth or a vector of them: TVM makes a >= b of Not(a < b), which of NaN is not the same.

    What x reads may be put into its place later, and be such a comparison.
    """
    compared: list[str] = []
    comparisons = tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE
    tvm_ffi.structural_walk(x, [(comparisons, lambda found: compared.append(str(found.a.ty)))])
    if compared and not any("float" in kind for kind in compared):
        return tirx.Not(x)
    return tirx.bitwise_xor(x, tirx.const(True, str(x.ty)))


def as_number(x: tirx.PrimExpr, dtype: str) -> tirx.PrimExpr:
    """1 where x, a truth or a vector of them, else 0.

    Where a name stands for a product with it, TVM 0.27 looks for bounds: of a cast these are truths as
    constants, which it can make neither of floats nor of vectors, and of integers that become floats 0 and 1
    as integers that are floats. What is reinterpreted, to and fro, has none.
    """
    lanes = int(str(x.ty).partition("x")[2] or 1)
    one, zero = (tirx.const(n, dtype) for n in (1, 0))
    if lanes > 1:
        one, zero = T.broadcast(one, lanes), T.broadcast(zero, lanes)
    number = tirx.Select(x, one, zero)
    if "int" not in dtype:
        return number
    kind = str(number.ty)
    other = kind.removeprefix("u") if kind.startswith("u") else f"u{kind}"
    return tirx.call_intrin(kind, "tirx.reinterpret", tirx.call_intrin(other, "tirx.reinterpret", number))
