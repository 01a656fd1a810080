"""Tensors side by side along an axis, in whole vectors: TVM's own asks for each number whose it is.

The plain reference is `numpy.concatenate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import copy, flat
from schedules.parts.write_back import KERNEL_ATTRIBUTES


def concatenation(shapes: Sequence[tuple[int, ...]], axis: int, dtype: str, lanes: int) -> tirx.PrimFunc:
    """Parameters of the kernel: the tensors, of these shapes, and the output. axis: not below 0; lanes:
    numbers that are moved at a time."""
    runs = [prod(shape[axis:]) for shape in shapes]
    extent = sum(shape[axis] for shape in shapes)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        sources = [T.arg(f"source{i}", T.buffer(shape, dtype)) for i, shape in enumerate(shapes)]
        out_shape = (*shapes[0][:axis], extent, *shapes[0][axis + 1 :])
        output = T.arg("output0", T.buffer(out_shape, dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            before, after = [flat(source) for source in sources], flat(output)
            with T.parallel(0, prod(shapes[0][:axis])) as r:
                first: Any = r * sum(runs)
                for source, run in zip(before, runs, strict=True):
                    copy(source, r * run, after, first, run, lanes)
                    first = first + run
    return builder.get()
