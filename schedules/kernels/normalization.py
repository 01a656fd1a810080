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
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments

WIDTHS = (32, 16, 8, 4, 2, 1)  # of the vectors that a row is added up in


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
            with T.parallel(0, batch * height * width) as r:

                def row(at: Any, lanes: int) -> Any:
                    return load(numbers, r * channels + at, lanes)

                mean = _mean(row, channels)

                def square(at: Any, lanes: int) -> Any:
                    far = row(at, lanes) - spread(mean, lanes)
                    return far * far

                deviation = tirx.sqrt(_mean(square, channels) + tirx.const(norm.epsilon, "float32"))
                factor = T.Bind(tirx.const(1, "float32") / deviation)

                def total(lane: Any, channel: Any, lanes: int) -> Any:
                    return (row(channel, lanes) - spread(mean, lanes)) * spread(factor, lanes)

                n, y, x = r // (height * width), r // width % height, r % width
                writer.write(n, y, x, 0, channels, total)
    return builder.get()


def _mean(value: Callable[[Any, int], Any], count: int) -> Any:
    """Of value(at, lanes), `lanes` numbers from `at` on, of `count` in all."""
    sums, done = [], 0
    for width in WIDTHS:
        blocks = (count - done) // width
        if blocks:
            part = T.alloc_buffer((width,), "float32", scope="local")
            store(part, 0, width, spread(tirx.const(0, "float32"), width))

            def block(i: Any, part: Any = part, width: int = width, first: int = done) -> None:
                store(part, 0, width, load(part, 0, width) + value(first + i * width, width))

            each(blocks, block)
            sums.append(_added_up(load(part, 0, width), width))
            done += blocks * width
    total = sums[0]
    for each_sum in sums[1:]:
        total = total + each_sum
    return T.Bind(total * tirx.const(1 / count, "float32"))


def _added_up(vector: Any, lanes: int) -> Any:
    """The lanes of a vector, halves onto halves."""
    vector = T.Bind(vector)
    while lanes > 1:
        lanes //= 2
        low, high = ([*range(first, first + lanes)] for first in (0, lanes))
        vector = T.Bind(tirx.Shuffle([vector], low) + tirx.Shuffle([vector], high))
    return vector
