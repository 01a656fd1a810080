"""Parts of a tensor by their indices are a kernel of ours where they are a vector long; TVM's own is slow."""

from __future__ import annotations

import math

import tvm
from tvm import relax, tirx

from relay_passes.ir.rewrite import dtype_of, is_call, shape_of
from relay_passes.kernels.concatenate import DTYPES
from schedules.kernels.gather import gather
from schedules.targets.kernel_target import KernelTarget

_SHORTEST = 16  # bytes


def gathering_kernel(
    value: relax.Expr, target: KernelTarget
) -> tuple[tirx.PrimFunc, relax.TensorType] | None:
    """The kernel and the type of what it writes; None for anything else."""
    if not is_call(value, "relax.take") or value.attrs.mode not in ("fast", "clip"):
        return None
    (x, indices), axis = value.args, value.attrs.axis
    shape, places, dtype = shape_of(x), shape_of(indices), dtype_of(x)
    if axis is None or dtype not in DTYPES or dtype_of(indices) not in ("int32", "int64"):
        return None
    axis = int(axis) % len(shape)
    out_shape = (*shape[:axis], *places, *shape[axis + 1 :])
    size = tvm.DataType(dtype).itemsize
    run = math.prod(shape[axis + 1 :])
    if 0 in (*shape, *places) or run * size < _SHORTEST:
        return None
    lanes = target.vector_bits // 8 // size
    clips = value.attrs.mode == "clip"
    kernel = gather(shape, places, axis, dtype, dtype_of(indices), lanes, clips=clips)
    return kernel, relax.TensorType(out_shape, dtype)
