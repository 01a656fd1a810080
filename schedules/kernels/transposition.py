"""Matrices of 32-bit numbers turned, square by square in registers: what is left of permutations between
operators that want planes and operators that want channels last.

The plain reference is `numpy.swapaxes`.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat
from schedules.parts.planes import square, turn
from schedules.parts.write_back import KERNEL_ATTRIBUTES


def turned_extents(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(batch, rows, columns) where a permutation to these axes turns matrices of neighbouring axes."""
    lead = next((i for i, axis in enumerate(axes) if i != axis), len(axes))
    rest = list(axes[lead:])
    turned = rest[: rest.index(lead)] if rest else []
    kept = list(range(lead, len(axes) - len(turned)))
    if not turned or rest != [*range(len(axes) - len(turned), len(axes)), *kept]:
        return None
    batch, rows, columns = (int(np.prod([shape[a] for a in part])) for part in (range(lead), kept, turned))
    return batch, rows, columns


def transposition(
    shape: tuple[int, ...], out_shape: tuple[int, ...], extents: tuple[int, int, int], dtype: str, floats: int
) -> tirx.PrimFunc:
    """Parameters of the kernel: a tensor that is read as [batch, rows, columns], and the output, which is
    written as [batch, columns, rows].

    extents: batch, rows, columns; floats: how many 32-bit numbers a vector register holds.
    """
    batch, rows, columns = extents
    side = square(min(rows, columns), floats)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("source", T.buffer(shape, dtype))
        output = T.arg("output0", T.buffer(out_shape, dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            before, after = flat(source), flat(output)
            strips = -(-columns // side)
            with T.parallel(0, batch * strips) as r:
                # The last ones begin where they fit, and write some numbers again.
                column = tirx.min(r % strips * side, columns - side)
                n = r // strips * (rows * columns)

                def square_at(row):
                    turn(
                        before,
                        n + row * columns + column,
                        columns,
                        after,
                        n + column * rows + row,
                        rows,
                        side,
                        side,
                    )

                each(rows // side, lambda i: square_at(i * side))
                if rows % side:
                    square_at(rows - side)
    return builder.get()
