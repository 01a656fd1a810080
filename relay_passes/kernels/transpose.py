"""A permutation that turns matrices is a kernel of ours; TVM's own is slow."""

from __future__ import annotations

from tvm import relax, tirx

from relay_passes.ir.permutations import order_of
from relay_passes.ir.rewrite import dtype_of, is_call, shape_of
from schedules.kernels.transposition import transposition, turned_extents
from schedules.targets.kernel_target import KernelTarget


def turning_kernel(value: relax.Expr, target: KernelTarget) -> tuple[tirx.PrimFunc, relax.TensorType] | None:
    """The kernel and the type of what it writes; None for anything else than such a permutation."""
    if not is_call(value, "relax.permute_dims"):
        return None
    x = value.args[0]
    shape, dtype, order = shape_of(x), dtype_of(x), order_of(value)
    extents = turned_extents(shape, order)
    if extents is None or dtype not in ("float32", "int32"):
        return None
    out_shape = tuple(shape[axis] for axis in order)
    return transposition(shape, out_shape, extents, dtype, target.floats), relax.TensorType(out_shape, dtype)
