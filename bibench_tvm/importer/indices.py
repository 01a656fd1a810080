"""Indices as both importers need them: negative ones count from the end, and none reaches outside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from bibench_tvm.importer.imported import ImportFailed

_LARGEST_SCATTER = 1 << 22  # coordinates, which become a constant


def scatter(
    data: relax.Expr, indices: relax.Expr, updates: relax.Expr, axis: int, reduction: str = "update"
) -> relax.Expr:
    """`data` with each update at its own place, but along the axis at its index; -1 is the last one.

    Our compiler has no schedule for TVM's operator of that, and one for the points that this makes of it.
    """
    shape = tuple(int(size) for size in indices.ty.shape)
    whole = tuple(int(size) for size in data.ty.shape)
    axis %= len(whole)
    count = math.prod(shape)
    if count * len(whole) > _LARGEST_SCATTER:
        raise NotImplementedError(f"{count} values to scatter are too many.")
    kind = str(indices.ty.dtype.dtype)
    index = relax.op.reshape(from_the_end(indices, whole[axis]), (count, 1))
    columns = list(np.indices(shape).reshape(len(shape), count, 1).astype(kind))
    points = [index if at == axis else relax.const(column, kind) for at, column in enumerate(columns)]
    return relax.op.scatter_nd(
        data,
        relax.op.concat(points, axis=1) if len(points) > 1 else index,
        relax.op.reshape(updates, (count,)),
        reduction,
    )


def from_the_end(indices: relax.Expr, size: int) -> relax.Expr:
    """Indices of which the negative ones count from the end of an axis of this size."""
    if isinstance(indices, tvm.ir.GenericConst):
        values = indices.value.numpy()
        return relax.const(np.where(values < 0, values + size, values), str(values.dtype))
    kind = str(indices.ty.dtype.dtype)
    if kind.startswith("u"):
        return indices
    below = relax.op.less(indices, relax.const(0, kind))
    return relax.op.where(below, relax.op.add(indices, relax.const(size, kind)), indices)


def with_bounded_indices(module: tvm.IRModule, where: str) -> tvm.IRModule:
    """No index that is computed reaches outside: it is taken as the nearest inside.

    TVM reads what lies there, or nothing that the process may read. Raises ImportFailed for a constant one.
    """
    bound = _Bound(module, where)
    for variable, function in module.functions.items():
        if isinstance(function, relax.Function):
            bound.builder_.update_func(variable, bound.visit_expr(function))
    return bound.builder_.get()


@mutator
class _Bound(PyExprMutator):
    def __init__(self, module: tvm.IRModule, where: str) -> None:
        super().__init__(module)
        self.where = where

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name = getattr(call.op, "name", "")
        if name not in _INDEXED:
            return call
        data, indices, *rest = call.args
        shape = [int(size) for size in data.ty.shape]
        if name == "relax.take":
            axis = call.attrs.axis
            size = shape[int(axis)] if axis is not None else math.prod(shape)
            if isinstance(indices, tvm.ir.GenericConst):
                self._inside(indices, np.array(size), name)
            if not isinstance(indices.ty, relax.TensorType):
                return call
            return relax.op.take(data, indices, None if axis is None else int(axis), mode="clip")
        if name in ("relax.index_tensor", "relax.index_put"):
            fields = [relax.TupleGetItem(indices, at) for at in range(len(indices.ty.fields))]
            fields = list(indices.fields) if isinstance(indices, relax.Tuple) else fields
            bounded: Any = relax.Tuple(
                [
                    self._inside(field, np.array(size), name)
                    for field, size in zip(fields, shape, strict=False)
                ]
            )
        elif name in ("relax.gather_nd", "relax.scatter_nd"):
            first = int(call.attrs.batch_dims) if name == "relax.gather_nd" else 0
            width = int(indices.ty.shape[-1])
            bounded = self._inside(indices, np.array(shape[first : first + width]), name)
        else:
            bounded = self._inside(indices, np.array(shape[int(call.attrs.axis)]), name)
        return relax.Call(call.op, [data, bounded, *rest], call.attrs, call.ty_args)

    def _inside(self, indices: relax.Expr, sizes: np.ndarray, name: str) -> relax.Expr:
        """sizes: integers that broadcast with the indices, one for each axis that they mean."""
        kind = str(indices.ty.dtype.dtype)
        if isinstance(indices, tvm.ir.GenericConst):
            values = indices.value.numpy()
            if ((values < 0) | (values >= sizes)).any():
                raise ImportFailed(
                    f"{self.where} picks elements outside of a tensor with {name.removeprefix('relax.')}: an "
                    f"index from {values.min()} to {values.max()}, where the sizes are {sizes.tolist()}."
                )
            return indices
        low = relax.op.maximum(indices, relax.const(0, kind))
        return self.builder_.emit(relax.op.minimum(low, relax.const(sizes - 1, kind)))


_INDEXED = {
    f"relax.{name}"
    for name in (
        "take", "gather_elements", "gather_nd", "index_tensor", "index_put", "scatter_elements", "scatter_nd",
    )
}  # fmt: skip
