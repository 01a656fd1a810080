"""Sums of signs are a kernel of their own, which takes nothing in."""

from __future__ import annotations

from tvm import relax, tirx

from relay_passes.ir.operators import SignSums, attributes_of
from relay_passes.ir.rewrite import is_call, shape_of
from schedules.kernels.sign_sums import sign_sums_kernel


def summing_kernel(value: relax.Expr) -> tuple[tirx.PrimFunc, relax.TensorType] | None:
    """The kernel and the type of what it writes; None for anything else than such sums."""
    if not is_call(value, "bibench.sign_sums"):
        return None
    batch, height, width, _ = shape_of(value.args[0])
    extents = batch, height, width
    packing = attributes_of(value, SignSums).packing
    return sign_sums_kernel(extents, packing), relax.TensorType((*extents, 1), "int32")
