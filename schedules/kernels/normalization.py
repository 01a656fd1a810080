"""Each row less its mean and divided by its deviation, which is what layer norm does before its scales.

The plain reference is `normalization_reference`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.rows import Number, kernel_of_rows, reduced_rows


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
    """Parameters of the kernel: as of `kernel_of_rows`."""
    channels = norm.shape[-1]

    def of_some(number: Number, together: int) -> Number:
        means, factors = (T.alloc_buffer((together,), "float32", scope="local") for _ in range(2))

        def centred(i: Any, at: Any, lanes: int) -> Any:
            return number(i, at, lanes) - spread(means[i], lanes)

        def square(i: Any, at: Any, lanes: int) -> Any:
            far = centred(i, at, lanes)
            return far * far

        def mean_of(value: Number) -> Any:
            totals = reduced_rows(value, channels, together, operator.add, tirx.const(0, "float32"))
            # Divided, and not multiplied by what rounds: of integers that are all their mean, it is them
            # exactly.
            return T.Bind(totals / spread(tirx.const(channels, "float32"), together))

        store(means, 0, together, mean_of(number))
        variance = mean_of(square)
        deviation = tirx.sqrt(variance + spread(tirx.const(norm.epsilon, "float32"), together))
        store(factors, 0, together, spread(tirx.const(1, "float32"), together) / deviation)
        return lambda i, at, lanes: centred(i, at, lanes) * spread(factors[i], lanes)

    return kernel_of_rows(norm.shape, epilogue, of_some)
