"""Each row less its mean and divided by its deviation, which is what layer norm does before its scales.

The plain reference is `normalization_reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.sums import add_up
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments

WIDTHS = (32, 16, 8, 4, 2, 1)  # of the vectors that a row is added up in
TOGETHER = 8  # rows, so that their roots and divisions are of vectors, and no row waits for the one before


@dataclass(frozen=True)
class Normalization:
    """shape: of rank 1 to 4, whose rows lie along the last axis; epsilon: what is added to the variance."""

    shape: tuple[int, ...]
    epsilon: float


def normalization_reference(x: np.ndarray, epsilon: float) -> np.ndarray:
    """float64, of the shape of x."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)


def normalization_kernel(norm: Normalization, epilogue: Epilogue) -> tirx.PrimFunc:
    """Parameters of the kernel: the tensor, float32, the epilogue's operands, and the outputs."""
    batch, height, width, channels = (1,) * (4 - len(norm.shape)) + norm.shape
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("source", T.buffer(norm.shape, "float32"))
        operands = operand_arguments(epilogue)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            numbers = flat(source)
            writer = Writer(epilogue, outputs, operands, (batch, height, width))
            writer.clear_halos()
            rows = batch * height * width
            together = min(TOGETHER, 1 << rows.bit_length() - 1)
            with T.parallel(0, -(-rows // together)) as g:
                # The last ones begin where they fit, and some rows are written again.
                first = tirx.min(g * together, rows - together) if rows % together else g * together
                means, factors = (T.alloc_buffer((together,), "float32", scope="local") for _ in range(2))

                def number(i: Any, at: Any, lanes: int) -> Any:
                    return load(numbers, (first + i) * channels + at, lanes)

                def centred(i: Any, at: Any, lanes: int) -> Any:
                    return number(i, at, lanes) - spread(means[i], lanes)

                def square(i: Any, at: Any, lanes: int) -> Any:
                    far = centred(i, at, lanes)
                    return far * far

                store(means, 0, together, _means(number, channels, together))
                variance = _means(square, channels, together)
                deviation = tirx.sqrt(variance + spread(tirx.const(norm.epsilon, "float32"), together))
                store(factors, 0, together, spread(tirx.const(1, "float32"), together) / deviation)

                def write(i: Any) -> None:
                    def total(lane: Any, channel: Any, lanes: int) -> Any:
                        return centred(i, channel, lanes) * spread(factors[i], lanes)

                    r = first + i
                    n, y, x = r // (height * width), r // width % height, r % width
                    writer.write(n, y, x, 0, channels, total)

                each(together, write)
    return builder.get()


def _means(value: Callable[[Any, Any, int], Any], count: int, rows: int) -> Any:
    """Of each of so many rows, a power of 2, in a vector. value(i, at, lanes): `lanes` numbers from `at` on
    of row i, which has `count`.

    Each row is added up to a vector of as many lanes as there are rows; the lanes of all these vectors are
    then added up together, which takes as long as it would for a row or two by themselves."""
    parts = T.alloc_buffer((rows * rows,), "float32", scope="local")
    left_over = T.alloc_buffer((rows,), "float32", scope="local")  # of what fills no such vector
    zero = tirx.const(0, "float32")

    def row(i: Any) -> None:
        wide, narrow, done = [spread(zero, rows)], [zero], 0
        for width in WIDTHS:
            blocks = (count - done) // width
            if blocks:
                part = T.alloc_buffer((width,), "float32", scope="local")
                store(part, 0, width, spread(zero, width))

                def block(b: Any, part: Any = part, width: int = width, first: int = done) -> None:
                    store(part, 0, width, load(part, 0, width) + value(i, first + b * width, width))

                each(blocks, block)
                (wide if width >= rows else narrow).append(_folded(load(part, 0, width), width, rows))
                done += blocks * width
        store(parts, i * rows, rows, _added(wide))
        store(left_over, i, 1, _added(narrow))

    each(rows, row)
    [totals] = add_up([load(parts, i * rows, rows) for i in range(rows)], rows)
    # Divided, and not multiplied by what rounds: of integers that are all their mean, it is them exactly.
    return T.Bind((totals + load(left_over, 0, rows)) / spread(tirx.const(count, "float32"), rows))


def _added(values: list[Any]) -> Any:
    """The first is 0, and stands for no others."""
    total = values[1] if len(values) > 1 else values[0]
    for value in values[2:]:
        total = total + value
    return total


def _folded(vector: Any, lanes: int, most: int) -> Any:
    """Halves of a vector onto halves, until there are `most` lanes; of one that has fewer, one number."""
    vector, end = T.Bind(vector), most if lanes >= most else 1
    while lanes > end:
        lanes //= 2
        low, high = ([*range(first, first + lanes)] for first in (0, lanes))
        vector = T.Bind(tirx.Shuffle([vector], low) + tirx.Shuffle([vector], high))
    return vector
