"""What the numbers of a row come to, of some rows at a time: their sum, the largest or the smallest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.sums import add_up
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments

WIDTHS = (64, 32, 16, 8, 4, 2, 1)  # of the vectors that a row is taken in
TOGETHER = 8  # rows, so that what is done once a row is of vectors, and no row waits for the one before

Combine = Callable[[Any, Any], Any]


Number = Callable[[Any, Any, int], Any]
"""number(i, at, lanes): `lanes` numbers from `at` on of row i of some rows."""


def kernel_of_rows(
    shape: tuple[int, ...],
    epilogue: Epilogue,
    of_some: Callable[[Number, int], Number],
    together: int = TOGETHER,
) -> tirx.PrimFunc:
    """What becomes of each row by itself. Parameters of the kernel: the tensor, float32, the epilogue's
    operands, and the outputs.

    shape: of rank 1 to 4, whose rows lie along the last axis. of_some(number, count): computes what is needed
    of so many rows together, a power of 2; gives what the epilogue gets of their numbers.
    """
    batch, height, width, channels = (1,) * (4 - len(shape)) + shape
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("source", T.buffer(shape, "float32"))
        operands = operand_arguments(epilogue)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            numbers = flat(source)
            writer = Writer(epilogue, outputs, operands, (batch, height, width))
            writer.clear_halos()

            def some_rows(first: Any, count: int) -> None:
                value = of_some(lambda i, at, lanes: load(numbers, (first + i) * channels + at, lanes), count)

                def write(i: Any) -> None:
                    r = first + i
                    n, y, x = r // (height * width), r // width % height, r % width
                    writer.write(n, y, x, 0, channels, lambda _, channel, lanes: value(i, channel, lanes))

                each(count, write)

            each_of_some(batch * height * width, some_rows, together)
    return builder.get()


def each_of_some(rows: int, body: Callable[[Any, int], None], together: int = TOGETHER) -> None:
    """body(first, count) for a power of 2 of rows at a time, which threads share out. The last ones begin
    where they fit: what is written of some rows is written again."""
    count = min(together, 1 << rows.bit_length() - 1)
    with T.parallel(0, -(-rows // count)) as g:
        body(tirx.min(g * count, rows - count) if rows % count else g * count, count)


def reduced_rows(
    value: Number,
    count: int,
    rows: int,
    combine: Combine,
    neutral: Any,
    widest: int = 32,
) -> Any:
    """Of each of so many rows, a power of 2, in a vector. value: of rows of `count` numbers; asked once for
    each. neutral: what changes nothing, a constant. widest: the
    lanes of a row that do not wait for each other, one of `WIDTHS`.

    Each row comes to a vector of as many lanes as there are rows; the lanes of all these vectors are then
    combined together, which takes as long as it would for a row or two by themselves."""
    dtype = str(neutral.ty)
    parts = T.alloc_buffer((rows * rows,), dtype, scope="local")
    left_over = T.alloc_buffer((rows,), dtype, scope="local")  # of what fills no such vector

    def combined(values: list[Any], lanes: int) -> Any:
        total = values[0] if values else spread(neutral, lanes)
        for other in values[1:]:
            total = combine(total, other)
        return total

    def row(i: Any) -> None:
        wide: list[Any] = []
        narrow: list[Any] = []
        done = 0
        for width in WIDTHS[WIDTHS.index(widest) :]:
            blocks = (count - done) // width
            if blocks:
                part = T.alloc_buffer((width,), dtype, scope="local")
                store(part, 0, width, spread(neutral, width))

                def block(b: Any, part: Any = part, width: int = width, first: int = done) -> None:
                    store(part, 0, width, combine(load(part, 0, width), value(i, first + b * width, width)))

                each(blocks, block)
                folded = _folded(load(part, 0, width), width, rows, combine)
                (wide if width >= rows else narrow).append(folded)
                done += blocks * width
        store(parts, i * rows, rows, combined(wide, rows))
        store(left_over, i, 1, combined(narrow, 1))

    each(rows, row)
    [totals] = add_up([load(parts, i * rows, rows) for i in range(rows)], rows, combine)
    return T.Bind(combine(totals, load(left_over, 0, rows)))


def _folded(vector: Any, lanes: int, most: int, combine: Combine) -> Any:
    """Halves of a vector onto halves, until there are `most` lanes; of one that has fewer, one number."""
    vector, end = T.Bind(vector), most if lanes >= most else 1
    while lanes > end:
        lanes //= 2
        low, high = ([*range(first, first + lanes)] for first in (0, lanes))
        vector = T.Bind(combine(tirx.Shuffle([vector], low), tirx.Shuffle([vector], high)))
    return vector
