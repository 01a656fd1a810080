"""Softmax along the last axis, each exponential computed once.

The plain reference is `softmax_reference`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import load, spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.rationals import exponential
from schedules.parts.rows import TOGETHER, Number, kernel_of_rows, reduced_rows

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
    """Parameters of the kernel: as of `kernel_of_rows`."""
    channels = softmax.shape[-1]
    most = next((n for n in (TOGETHER, 4, 2) if n * channels <= _KEPT), 1)

    def of_some(number: Number, together: int) -> Number:
        largest, factors = (T.alloc_buffer((together,), "float32", scope="local") for _ in range(2))
        powers = T.alloc_buffer((together * channels,), "float32")

        def power(i: Any, at: Any, lanes: int) -> Any:
            below = T.Bind(number(i, at, lanes) - spread(largest[i], lanes))
            value = T.Bind(exponential(below))
            store(powers, i * channels + at, lanes, value)
            return value

        lowest = tirx.min_value("float32")
        store(largest, 0, together, reduced_rows(number, channels, together, tirx.max, lowest))
        totals = reduced_rows(power, channels, together, operator.add, tirx.const(0, "float32"))
        store(factors, 0, together, spread(tirx.const(1, "float32"), together) / totals)
        return lambda i, at, lanes: load(powers, i * channels + at, lanes) * spread(factors[i], lanes)

    return kernel_of_rows(softmax.shape, epilogue, of_some, most)
