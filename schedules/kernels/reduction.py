"""The largest, the smallest, the sum or the mean along neighbouring axes, in vectors: TVM's own along the
last axis is number by number.

The plain reference is numpy's `max`, `min`, `sum` or `mean` over the middle axis of [outer, reduced, inner].
"""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.rows import TOGETHER, WIDTHS, each_of_some, reduced_rows
from schedules.parts.write_back import KERNEL_ATTRIBUTES

Kind = Literal["max", "min", "sum", "mean"]
LANES = 16
_SHORT = 1 << 10  # numbers of a row; longer ones are worth a thread each


def reduced_extents(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(outer, reduced, inner) where these axes are neighbours; None where they are not."""
    first, last = min(axes), max(axes)
    if sorted(axes) != list(range(first, last + 1)):
        return None
    outer, reduced, inner = (
        int(np.prod(shape[begin:end]))
        for begin, end in ((0, first), (first, last + 1), (last + 1, len(shape)))
    )
    return outer, reduced, inner


def reduction_kernel(
    shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    extents: tuple[int, int, int],
    dtype: str,
    kind: Kind,
    *,
    together: int = 4,
) -> tirx.PrimFunc:
    """Parameters of the kernel: a tensor that is read as [outer, reduced, inner], and [outer, inner].

    extents: outer, reduced, inner. together: vectors of `LANES` that do not wait for each other; across
    memory they are read from one stretch of it.
    """
    outer, reduced, inner = extents
    combine, neutral = {
        "max": (tirx.max, tirx.min_value(dtype)),
        "min": (tirx.min, tirx.max_value(dtype)),
    }.get(kind, (operator.add, tirx.const(0, dtype)))

    def settled(total: Any, lanes: int) -> Any:
        return total / spread(tirx.const(reduced, dtype), lanes) if kind == "mean" else total

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("source", T.buffer(shape, dtype))
        output = T.arg("output0", T.buffer(out_shape, dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            before, after = flat(source), flat(output)

            def along_memory(first: Any, rows: int) -> None:
                def number(i: Any, at: Any, lanes: int) -> Any:
                    return load(before, (first + i) * reduced + at, lanes)

                widest = next(width for width in WIDTHS if width <= max(1, together) * LANES)
                totals = reduced_rows(number, reduced, rows, combine, neutral, widest)
                store(after, first, rows, settled(totals, rows))

            def across_memory(row: Any, first: Any, count: int, width: int) -> None:
                totals = T.alloc_buffer((count * width,), dtype, scope="local")
                store(totals, 0, count * width, spread(neutral, count * width))

                def line(i: Any) -> None:
                    for v in range(0, count * width, width):
                        value = load(before, (row * reduced + i) * inner + first + v, width)
                        store(totals, v, width, combine(load(totals, v, width), value))

                each(reduced, line)
                for v in range(0, count * width, width):
                    store(after, row * inner + first + v, width, settled(load(totals, v, width), width))

            if inner == 1:
                each_of_some(outer, along_memory, TOGETHER if reduced <= _SHORT else 1)
            else:
                width = next((lanes for lanes in (LANES, 8, 4) if lanes <= inner), 1)
                count = min(together, inner // width)
                step = count * width
                blocks = -(-inner // step)
                with T.parallel(0, outer * blocks) as r:
                    # The last ones begin where they fit, and write some numbers again.
                    across_memory(r // blocks, tirx.min(r % blocks * step, inner - step), count, width)
    return builder.get()
