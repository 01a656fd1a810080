"""Operators of PyTorch that take indices, which TVM's converters read wrongly. See `repairs.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from bibench_tvm.importer.indices import from_the_end, scatter

aten = torch.ops.aten

_MOVING = {
    aten.slice.Tensor, aten.select.int, aten.slice_scatter.default, aten.select_scatter.default,
    aten.copy.default, aten.clone.default, aten.alias.default, aten.cat.default,
}  # fmt: skip
_EMPTY = {aten.empty.memory_format, aten.new_empty.default, aten.empty_like.default}
_MANY_MOVES, _MANY_PLACES = 64, 1 << 24


class Indexing(ExportedProgramImporter):
    """TVM's translator with these converters. `values`: of the nodes that depend on parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[fx.Node, Any] = {}
        self.convert_map["embedding.default"] = self._embedding
        self.convert_map["unfold.default"] = self._unfold

    def _emitted(self, expr: relax.Expr) -> relax.Expr:
        return self.block_builder.emit(expr)

    def _arg(self, node: Any, position: int = 0) -> relax.Expr:
        return self.env[node.args[position]]

    def _select(self, node: Any) -> relax.Expr:
        x, axis, index = node.args
        size = x.meta["val"].shape[axis]
        # TVM's own reads out of bounds for a negative index.
        taken = relax.op.take(self.env[x], relax.const(index % size, "int64"), axis=axis)
        return self.block_builder.emit(taken)

    def _slice_scatter(self, node: Any) -> relax.Expr:
        """TVM's own keeps what was there before: nothing, where slices fill it one after another, as those of
        a circular padding do."""
        moved = self._moved(node)
        return super()._slice_scatter(node) if moved is None else moved

    def _moved(self, node: Any) -> relax.Expr | None:
        """What is written so, as parts side by side, of tensors whose elements are picked along their axes.

        None where it is not that. Which elements PyTorch says: it moves their numbers instead of them.
        """
        order: list[fx.Node] = []
        pending = [node]
        while pending:
            at = pending.pop()
            if at not in order:
                order.append(at)
                pending += at.all_input_nodes if at.target in _MOVING and at not in self.values else ()
            if len(order) > _MANY_MOVES or math.prod(at.meta["val"].shape) > _MANY_PLACES:
                return None
        order.sort(key=list(node.graph.nodes).index)
        places: dict[fx.Node, torch.Tensor] = {}
        sources: list[fx.Node] = []
        firsts = [0]  # the number of the first element of each source, and one more
        for at in order:
            shape = tuple(at.meta["val"].shape)
            if at in self.values or at.target in _EMPTY:
                places[at] = torch.full(shape, -1)
            elif at.target in _MOVING:
                args, kwargs = fx.node.map_arg((at.args, at.kwargs), lambda used: places[used])
                places[at] = at.target(*args, **kwargs)
            elif at.meta["val"].dtype == node.meta["val"].dtype and len(shape) == node.meta["val"].dim():
                sources.append(at)
                firsts.append(firsts[-1] + math.prod(shape))
                places[at] = torch.arange(firsts[-2], firsts[-1]).reshape(shape)
            else:
                return None
        found = places[node].numpy()
        if (found < 0).any():
            return None
        which = np.searchsorted(firsts, found, side="right") - 1
        for axis in range(found.ndim):
            lines = _along(which, axis)
            if lines is None:
                continue
            ends = [*(np.flatnonzero(np.diff(lines)) + 1).tolist(), len(lines)]
            parts = []
            for begin, end in zip([0, *ends], ends, strict=False):
                source = sources[lines[begin]]
                part = found.take(range(begin, end), axis) - firsts[lines[begin]]
                parts.append(self._picked_along(source, part))
            if all(part is not None for part in parts):
                return parts[0] if len(parts) == 1 else self._emitted(relax.op.concat(parts, axis))
        return None

    def _picked_along(self, source: fx.Node, places: np.ndarray) -> relax.Expr | None:
        """These elements, numbered row by row; None where those along an axis are not the same everywhere."""
        x, shape = self.env[source], tuple(source.meta["val"].shape)
        for axis, at in enumerate(np.unravel_index(places, shape)):
            if (line := _along(at, axis)) is None:
                return None
            if not np.array_equal(line, np.arange(shape[axis])):
                x = self._emitted(relax.op.take(x, relax.const(line, "int64"), axis=axis))
        return x

    def _embedding(self, node: Any) -> relax.Expr:
        """TVM's own cuts ids to 32 bits: of those outside, others than the nearest inside would be taken."""
        return self._emitted(relax.op.take(self._arg(node), self._arg(node, 1), axis=0))

    def _unfold(self, node: Any) -> relax.Expr:
        """TVM has none: windows of an axis, each of which becomes a last axis."""
        x, axis, size, step = node.args
        shape = list(x.meta["val"].shape)
        axis %= len(shape)
        windows = np.arange(0, shape[axis] - size + 1, step)
        places = windows[:, None] + np.arange(size)
        taken = self._emitted(relax.op.take(self.env[x], relax.const(places.ravel(), "int64"), axis=axis))
        shape[axis : axis + 1] = places.shape
        order = [other for other in range(len(shape)) if other != axis + 1]
        apart = self._emitted(relax.op.reshape(taken, shape))
        return self._emitted(relax.op.permute_dims(apart, [*order, axis + 1]))

    def _take(self, node: Any) -> relax.Expr:
        """TVM's own reads outside for negative indices."""
        count = math.prod(node.args[0].meta["val"].shape)
        return self._emitted(relax.op.take(self._arg(node), from_the_end(self._arg(node, 1), count)))

    def _scatter(self, node: Any) -> relax.Expr:
        """TVM refuses updates that are more than the indices, and we have no schedule for its operator."""
        x, axis, index, source = node.args
        shape = index.meta["val"].shape
        updates = self.env[source]
        if tuple(shape) != tuple(source.meta["val"].shape):
            updates = relax.op.strided_slice(updates, list(range(len(shape))), [0] * len(shape), list(shape))
        return self._emitted(scatter(self.env[x], self.env[index], self._emitted(updates), axis))

    def _scatter_value(self, node: Any) -> relax.Expr:
        """Right in TVM; but we have no schedule for its operator."""
        x, axis, index, value = node.args
        dtype = self._convert_data_type(x.meta["val"].dtype)
        updates = relax.op.full(tuple(index.meta["val"].shape), relax.const(value, dtype), dtype)
        return self._emitted(scatter(self.env[x], self.env[index], self._emitted(updates), axis))

    def _picked(self, node: Any) -> tuple[list[int], relax.Expr, tuple[int, ...], int]:
        """(indexed axes, index into their elements, its shape, where that stands in the result) of a node
        that indexes as numpy does. Raises NotImplementedError for a mask."""
        shape = node.args[0].meta["val"].shape
        axes = [axis for axis, index in enumerate(node.args[1]) if index is not None]
        metas = [node.args[1][axis].meta["val"] for axis in axes]
        if any(meta.dtype in (torch.bool, torch.uint8) for meta in metas):
            raise NotImplementedError(
                "how many elements a mask picks depends on the values of the input; torch.where(mask, a, b) "
                "keeps the shape."
            )
        places = tuple(torch.broadcast_shapes(*(meta.shape for meta in metas)))
        total = None
        for axis in axes:
            known = self.values.get(node.args[1][axis])
            if (
                known is not None
                and known.numel()
                and not -shape[axis] <= known.min() <= known.max() < shape[axis]
            ):
                raise NotImplementedError(
                    f"indices from {int(known.min())} to {int(known.max())} reach outside of {shape[axis]}."
                )
            index = self.env[node.args[1][axis]]
            if str(index.ty.dtype.dtype) != "int64":
                index = self._emitted(relax.op.astype(index, "int64"))
            index = self._emitted(from_the_end(index, shape[axis]))
            last = relax.const(shape[axis] - 1, "int64")
            index = relax.op.minimum(relax.op.maximum(index, relax.const(0, "int64")), last)
            stride = math.prod(shape[other] for other in axes if other > axis)
            index = relax.op.multiply(index, relax.const(stride, "int64"))
            total = index if total is None else relax.op.add(total, index)
        together = axes == list(range(axes[0], axes[0] + len(axes)))
        return axes, self._emitted(total), places, axes[0] if together else 0

    def _index_tensor(self, node: Any) -> relax.Expr:
        """TVM's own reads outside for negative indices, and takes those of several axes one after another."""
        axes, index, places, position = self._picked(node)
        x, shape = self.env[node.args[0]], node.args[0].meta["val"].shape
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        if len(axes) == 1:
            return self._emitted(relax.op.take(x, index, axis=axes[0]))
        x = self._emitted(relax.op.permute_dims(x, [*axes, *rest]))
        count = math.prod(shape[axis] for axis in axes)
        x = relax.op.reshape(x, (count, *(shape[axis] for axis in rest)))
        taken = relax.op.take(x, index, axis=0)
        order = list(range(len(places) + len(rest)))
        order = [*order[len(places) :][:position], *order[: len(places)], *order[len(places) + position :]]
        return self._emitted(relax.op.permute_dims(taken, order))

    def _index_put(self, node: Any) -> relax.Expr:
        """TVM refuses a mask, and indices of some of the axes."""
        x, indices, values, accumulate = (*node.args, False)[:4]
        shape = tuple(x.meta["val"].shape)
        mask = indices[0].meta["val"] if len(indices) == 1 and indices[0] is not None else None
        if mask is not None and mask.dtype is torch.bool:
            if accumulate or math.prod(values.meta["val"].shape) != 1:
                raise NotImplementedError(
                    "how many values a mask takes depends on the values of the input; "
                    "torch.where(mask, a, b) keeps the shape."
                )
            wide = self.env[indices[0]]
            if mask.dim() < len(shape):
                wide = relax.op.reshape(wide, (*mask.shape, *[1] * (len(shape) - mask.dim())))
            value = relax.op.reshape(self.env[values], ())
            return self._emitted(relax.op.where(wide, value, self.env[x]))
        axes, index, places, position = self._picked(node)
        rest = [axis for axis in range(len(shape)) if axis not in axes]
        sizes = [shape[axis] for axis in rest]
        new = relax.op.broadcast_to(self.env[values], (*sizes[:position], *places, *sizes[position:]))
        order = list(range(len(places) + len(rest)))
        at = range(position, position + len(places))
        new = relax.op.permute_dims(new, [*at, *(axis for axis in order if axis not in at)])
        whole = relax.op.permute_dims(self.env[x], [*axes, *rest])
        whole = relax.op.reshape(whole, (math.prod(shape[axis] for axis in axes), *sizes))
        count = math.prod(places)
        index = relax.op.reshape(relax.op.broadcast_to(index, places), (count, 1))
        made = relax.op.scatter_nd(
            whole, index, relax.op.reshape(new, (count, *sizes)), "add" if accumulate else "update"
        )
        made = relax.op.reshape(made, (*(shape[axis] for axis in axes), *sizes))
        turned = [*axes, *rest]
        return self._emitted(relax.op.permute_dims(made, [turned.index(axis) for axis in range(len(shape))]))


def _along(values: np.ndarray, axis: int) -> np.ndarray | None:
    """Of what is the same everywhere but along this axis, the numbers along it."""
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return rows[:, 0] if rows.size and (rows == rows[:, :1]).all() else None
