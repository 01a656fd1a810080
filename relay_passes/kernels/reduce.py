"""A maximum or minimum along neighbouring axes, and a sum or mean along the last ones, is a kernel of ours:
TVM's own is slow along the last axis. Across memory its sums are as good, and it computes more with them."""

from __future__ import annotations

from typing import get_args

from tvm import relax, tirx

from relay_passes.ir.rewrite import dtype_of, is_call, shape_of
from schedules.kernels.reduction import LANES, Kind, reduced_extents, reduction_kernel
from schedules.targets.kernel_target import KernelTarget


def reducing_kernel(value: relax.Expr, target: KernelTarget) -> tuple[tirx.PrimFunc, relax.TensorType] | None:
    """The kernel and the type of what it writes; None for anything else."""
    kinds: dict[str, Kind] = {f"relax.{kind}": kind for kind in get_args(Kind)}
    if not is_call(value, *kinds):
        return None
    kind, x = kinds[value.op.name], value.args[0]
    shape, dtype = shape_of(x), dtype_of(x)
    axes = range(len(shape)) if value.attrs.axis is None else [int(a) % len(shape) for a in value.attrs.axis]
    extents = reduced_extents(shape, tuple(axes)) if axes else None
    if extents is None or 0 in extents or dtype not in ("float32", "int32"):
        return None
    if kind in ("sum", "mean") and (extents[2] != 1 or dtype != "float32"):
        return None
    kept = [1 if axis in axes else extent for axis, extent in enumerate(shape)]
    if not value.attrs.keepdims:
        kept = [extent for axis, extent in enumerate(shape) if axis not in axes]
    # Half of the registers, so that none is written to memory and read again.
    together = target.registers * target.floats // (2 * LANES)
    kernel = reduction_kernel(shape, tuple(kept), extents, dtype, kind, together=together)
    return kernel, relax.TensorType(tuple(kept), dtype)
