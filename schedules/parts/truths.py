"""The opposite of a comparison, as it is for NaN too."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx


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
