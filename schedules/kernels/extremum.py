"""The largest or smallest along neighbouring axes, in vectors: TVM's own along the last axis is number by
number.

The plain reference is numpy's `max` or `min` over the middle axis of [outer, reduced, inner].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.write_back import KERNEL_ATTRIBUTES

LANES = 16


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


def extremum_kernel(
    shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    extents: tuple[int, int, int],
    dtype: str,
    *,
    greatest: bool,
    together: int = 4,
) -> tirx.PrimFunc:
    """Parameters of the kernel: a tensor that is read as [outer, reduced, inner], and [outer, inner].

    extents: outer, reduced, inner. together: vectors of `LANES` that do not wait for each other; across
    memory they are read from one stretch of it.
    """
    outer, reduced, inner = extents
    better = tirx.max if greatest else tirx.min
    limit = tirx.min_value(dtype) if greatest else tirx.max_value(dtype)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("source", T.buffer(shape, dtype))
        output = T.arg("output0", T.buffer(out_shape, dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            before, after = flat(source), flat(output)

            def keep(best: Any, at: Any, lanes: int, value: Any) -> None:
                store(best, at, lanes, better(load(best, at, lanes), value))

            def along_memory(row: Any, count: int, width: int) -> None:
                """Into vectors first, and these into one number."""
                best = T.alloc_buffer((count * width,), dtype, scope="local")
                store(best, 0, count * width, spread(limit, count * width))
                step = count * width

                def block(i: Any) -> None:
                    for v in range(count):
                        at = row * reduced + i * step + v * width
                        keep(best, v * width, width, load(before, at, width))

                each(reduced // step, block)
                # What is left begins where a vector fits; some numbers are looked at again.
                for first in range(reduced // step * step, reduced, width):
                    at = min(first, reduced - width)
                    keep(best, 0, width, load(before, row * reduced + at, width))
                total = best[0]
                for i in range(1, step):
                    total = better(total, best[i])
                T.buffer_store(after, total, [row])

            def across_memory(row: Any, first: Any, count: int, width: int) -> None:
                best = T.alloc_buffer((count * width,), dtype, scope="local")
                store(best, 0, count * width, spread(limit, count * width))

                def line(i: Any) -> None:
                    for v in range(0, count * width, width):
                        at = (row * reduced + i) * inner + first + v
                        keep(best, v, width, load(before, at, width))

                each(reduced, line)
                for v in range(0, count * width, width):
                    store(after, row * inner + first + v, width, load(best, v, width))

            if inner == 1:
                width = _lanes(reduced)
                count = min(together, reduced // width)
                with T.parallel(0, outer) as row:
                    along_memory(row, count, width)
            else:
                width = _lanes(inner)
                count = min(together, inner // width)
                step = count * width
                blocks = -(-inner // step)
                with T.parallel(0, outer * blocks) as r:
                    # The last ones begin where they fit, and write some numbers again.
                    across_memory(r // blocks, tirx.min(r % blocks * step, inner - step), count, width)
    return builder.get()


def _lanes(extent: int) -> int:
    """Of a vector that fits."""
    return next((lanes for lanes in (LANES, 8, 4) if lanes <= extent), 1)
