"""Parts of a tensor by their indices, in whole vectors, as an embedding takes rows of its table: TVM's own
reads an index for each few numbers.

The plain reference is `numpy.take`.
"""

from __future__ import annotations

from math import prod

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import copy, flat
from schedules.parts.write_back import KERNEL_ATTRIBUTES, TOUCHED


def gather(
    shape: tuple[int, ...],
    indices: tuple[int, ...],
    axis: int,
    dtype: str,
    index_dtype: str,
    lanes: int,
    *,
    clips: bool,
) -> tirx.PrimFunc:
    """Parameters of the kernel: a tensor of this shape, indices of theirs, and the output, in which their
    axes stand for this one. axis: not below 0; lanes: numbers that are moved at a time; clips: whether an
    index outside is that of the first or last part, and not undefined."""
    outer, extent, run = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    count = prod(indices)
    moved = outer * count * run * tvm.DataType(dtype).itemsize
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr({**KERNEL_ATTRIBUTES, TOUCHED: 2 * moved})
        source = T.arg("source", T.buffer(shape, dtype))
        wanted = T.arg("indices", T.buffer(indices, index_dtype))
        output = T.arg("output0", T.buffer((*shape[:axis], *indices, *shape[axis + 1 :]), dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            before, places, after = flat(source), flat(wanted), flat(output)
            with T.parallel(0, outer * count) as r:
                index = places[r % count]
                if clips:
                    first, last = (tirx.const(end, index_dtype) for end in (0, extent - 1))
                    index = tirx.max(first, tirx.min(index, last))
                part = T.Bind(r // count * extent + index.astype("int64"))
                copy(before, part * run, after, r * run, run, lanes)
    return builder.get()
