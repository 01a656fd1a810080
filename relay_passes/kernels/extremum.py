"""A maximum or minimum along neighbouring axes is a kernel of ours; TVM's own is slow along the last axis."""

from __future__ import annotations

from tvm import relax, tirx

from relay_passes.ir.rewrite import dtype_of, is_call, shape_of
from schedules.kernels.extremum import LANES, extremum_kernel, reduced_extents
from schedules.targets.kernel_target import KernelTarget


def extremum_of(value: relax.Expr, target: KernelTarget) -> tuple[tirx.PrimFunc, relax.TensorType] | None:
    """The kernel and the type of what it writes; None for anything else."""
    if not is_call(value, "relax.max", "relax.min"):
        return None
    x = value.args[0]
    shape, dtype = shape_of(x), dtype_of(x)
    axes = range(len(shape)) if value.attrs.axis is None else [int(a) % len(shape) for a in value.attrs.axis]
    extents = reduced_extents(shape, tuple(axes)) if axes else None
    if extents is None or 0 in extents or dtype not in ("float32", "int32"):
        return None
    kept = [1 if axis in axes else extent for axis, extent in enumerate(shape)]
    if not value.attrs.keepdims:
        kept = [extent for axis, extent in enumerate(shape) if axis not in axes]
    greatest = value.op.name == "relax.max"
    # Half of the registers, so that none is written to memory and read again.
    together = target.registers * target.floats // (2 * LANES)
    kernel = extremum_kernel(shape, tuple(kept), extents, dtype, greatest=greatest, together=together)
    return kernel, relax.TensorType(tuple(kept), dtype)
