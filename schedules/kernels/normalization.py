"""Each row less its mean and divided by its deviation, which is what layer norm does before its scales.

The plain reference is `normalization_reference`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.rows import each_of_some, reduced_rows
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments


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

            def some_rows(first: Any, together: int) -> None:
                means, factors = (T.alloc_buffer((together,), "float32", scope="local") for _ in range(2))

                def number(i: Any, at: Any, lanes: int) -> Any:
                    return load(numbers, (first + i) * channels + at, lanes)

                def centred(i: Any, at: Any, lanes: int) -> Any:
                    return number(i, at, lanes) - spread(means[i], lanes)

                def square(i: Any, at: Any, lanes: int) -> Any:
                    far = centred(i, at, lanes)
                    return far * far

                def mean_of(value: Callable[[Any, Any, int], Any]) -> Any:
                    totals = reduced_rows(value, channels, together, operator.add, tirx.const(0, "float32"))
                    # Divided, and not multiplied by what rounds: of integers that are all their mean, it is
                    # them exactly.
                    return T.Bind(totals / spread(tirx.const(channels, "float32"), together))

                store(means, 0, together, mean_of(number))
                variance = mean_of(square)
                deviation = tirx.sqrt(variance + spread(tirx.const(norm.epsilon, "float32"), together))
                store(factors, 0, together, spread(tirx.const(1, "float32"), together) / deviation)

                def write(i: Any) -> None:
                    def total(lane: Any, channel: Any, lanes: int) -> Any:
                        return centred(i, channel, lanes) * spread(factors[i], lanes)

                    r = first + i
                    n, y, x = r // (height * width), r // width % height, r % width
                    writer.write(n, y, x, 0, channels, total)

                each(together, write)

            each_of_some(batch * height * width, some_rows)
    return builder.get()
