"""Softmax along the last axis, each exponential computed once.

The plain reference is `softmax_reference`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.rationals import exponential
from schedules.parts.rows import TOGETHER, each_of_some, reduced_rows
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments

_KEPT = 1 << 12  # exponentials of some rows, which lie in the first cache


@dataclass(frozen=True)
class Softmax:
    """shape: of rank 1 to 4, whose rows lie along the last axis."""

    shape: tuple[int, ...]


def softmax_reference(x: np.ndarray) -> np.ndarray:
    """float64, of the shape of x."""
    powers = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def softmax_kernel(softmax: Softmax, epilogue: Epilogue) -> tirx.PrimFunc:
    """Parameters of the kernel: the tensor, float32, the epilogue's operands, and the outputs."""
    batch, height, width, channels = (1,) * (4 - len(softmax.shape)) + softmax.shape
    together = next((n for n in (TOGETHER, 4, 2) if n * channels <= _KEPT), 1)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("source", T.buffer(softmax.shape, "float32"))
        operands = operand_arguments(epilogue)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            numbers = flat(source)
            writer = Writer(epilogue, outputs, operands, (batch, height, width))
            writer.clear_halos()

            def some_rows(first: Any, together: int) -> None:
                largest, factors = (T.alloc_buffer((together,), "float32", scope="local") for _ in range(2))
                powers = T.alloc_buffer((together * channels,), "float32")

                def number(i: Any, at: Any, lanes: int) -> Any:
                    return load(numbers, (first + i) * channels + at, lanes)

                def power(i: Any, at: Any, lanes: int) -> Any:
                    below = T.Bind(number(i, at, lanes) - spread(largest[i], lanes))
                    value = T.Bind(exponential(below))
                    store(powers, i * channels + at, lanes, value)
                    return value

                lowest = tirx.min_value("float32")
                store(largest, 0, together, reduced_rows(number, channels, together, tirx.max, lowest))
                totals = reduced_rows(power, channels, together, operator.add, tirx.const(0, "float32"))
                store(factors, 0, together, spread(tirx.const(1, "float32"), together) / totals)

                def write(i: Any) -> None:
                    def total(lane: Any, channel: Any, lanes: int) -> Any:
                        return load(powers, i * channels + channel, lanes) * spread(factors[i], lanes)

                    r = first + i
                    n, y, x = r // (height * width), r // width % height, r % width
                    writer.write(n, y, x, 0, channels, total)

                each(together, write)

            each_of_some(batch * height * width, some_rows, together)
    return builder.get()
