"""Tensors that are put side by side are a kernel of ours; TVM's own is slow."""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from relay_passes.ir.rewrite import dtype_of, is_call, shape_of
from schedules.kernels.concatenation import concatenation
from schedules.targets.kernel_target import KernelTarget

DTYPES = ("float32", "int32", "uint8", "uint16", "uint32")


def joining_kernel(value: relax.Expr, target: KernelTarget) -> tuple[tirx.PrimFunc, relax.TensorType] | None:
    """The kernel of a tuple's fields and the type of what it writes; None for anything else."""
    if not is_call(value, "relax.concat") or not isinstance(value.args[0], relax.Tuple):
        return None
    fields = list(value.args[0].fields)
    dtypes = {dtype_of(field) for field in fields}
    shapes = [shape_of(field) for field in fields]
    if len(dtypes) != 1 or value.attrs.axis is None or not all(all(shape) for shape in shapes):
        return None
    dtype, axis = dtypes.pop(), int(value.attrs.axis) % len(shapes[0])
    if dtype not in DTYPES:
        return None
    extent = sum(shape[axis] for shape in shapes)
    out_shape = (*shapes[0][:axis], extent, *shapes[0][axis + 1 :])
    lanes = target.vector_bits // 8 // tvm.DataType(dtype).itemsize
    return concatenation(shapes, axis, dtype, lanes), relax.TensorType(out_shape, dtype)
