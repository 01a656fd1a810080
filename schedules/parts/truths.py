"""The opposite of a comparison, as it is for NaN too."""

from __future__ import annotations

from tvm import tirx


def opposite(x: tirx.PrimExpr) -> tirx.PrimExpr:
    """Not x, a truth or a vector of them: TVM makes a >= b of Not(a < b), which of NaN is not the same."""
    if not _compares_floats(x):
        return tirx.Not(x)
    return tirx.bitwise_xor(x, tirx.const(True, str(x.ty)))


def _compares_floats(x: tirx.PrimExpr) -> bool:
    found: list[tirx.PrimExpr] = []
    compares = tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE
    tirx.stmt_functor.post_order_visit(x, lambda e: found.append(e) if isinstance(e, compares) else None)
    return any("float" in str(e.a.ty) for e in found)
