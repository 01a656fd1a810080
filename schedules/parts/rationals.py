"""erf, tanh, exp and log by polynomials, which LLVM computes in vectors; its own are calls, one a number.

erf and tanh are x P(x^2) / Q(x^2), cut where the function is 1 in float32 anyway. The coefficients are a
fit of ours, with the smallest largest relative error; evaluated in float32 it is below 4e-7, mostly of the
evaluation. exp(x) is 2^n exp(x - n log 2) with Taylor's series, below 2e-7 where the result is a normal
number. log(2^n m) is n log 2 + 2 artanh(s) with s = (m - 1) / (m + 1) and m from sqrt(1/2) to sqrt(2), by the
series of artanh; below 3e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T


@dataclass(frozen=True)
class Rational:
    """limit: beyond which x is taken as it; the coefficients from that of x^0 on."""

    limit: float
    numerator: Sequence[float]
    denominator: Sequence[float]


ERF = Rational(
    4.0,
    (1.1283791, 0.19353594, 0.05310025, 0.0038828673, 0.00028454169, 1.9866841e-06),
    (1.0, 0.50484931, 0.11534596, 0.015206315, 0.0011854297, 3.7417867e-05),
)
TANH = Rational(
    9.0,
    (1.0, 0.14099933, 0.0044269138, 4.2298667e-05, 1.1131988e-07, 3.6834744e-11),
    (1.0, 0.47433266, 0.029204469, 0.000501020, 2.6061755e-06, 2.9565246e-09),
)


# log 2 in two parts, the first with so few digits that its product with any n is exact; 1 / k!.
_LOG_2 = (0.693359375, -2.12194440e-4)
_SERIES = tuple(1 / math.factorial(k) for k in range(8))
_BELOW, _ABOVE = -104.0, 89.0  # beyond which exp is 0 and infinite


def exponential(x: Any, bind: Callable[[Any], Any] = T.Bind) -> Any:
    """TIR of one float32, or of a vector of them; of NaN, NaN. bind: keeps a value that is read several
    times, where statements may stand."""
    dtype = str(x.ty)
    whole = dtype.replace("float32", "int32")

    def constant(value: float) -> Any:
        return tirx.const(value, dtype)

    def power(n: Any) -> Any:
        """2^n of integers from -126 to 127, by its bits."""
        return tirx.call_intrin(
            dtype, "tirx.reinterpret", (n + tirx.const(127, whole)) * tirx.const(1 << 23, whole)
        )

    inside = _within(x, constant(_BELOW), constant(_ABOVE))
    # Of NaN no integer is made: `max` and `min` give a bound for it.
    scaled = tirx.max(tirx.min(x, constant(_ABOVE)), constant(_BELOW)) * constant(1 / math.log(2))
    half = tirx.Select(scaled < constant(0), constant(-0.5), constant(0.5))
    n = bind((scaled + half).astype(whole))
    k = n.astype(dtype)
    rest = bind(inside - k * constant(_LOG_2[0]) - k * constant(_LOG_2[1]))
    series = _polynomial(_SERIES, rest)
    first = tirx.shift_right(n, tirx.const(1, whole))
    return series * power(first) * power(n - first)


# 1 / (2k + 1), of artanh(s) / s in s^2, which is 0.03 at most.
_ODD = tuple(1 / (2 * k + 1) for k in range(6))
_ROOT_OF_HALF = 0x3F3504F3  # its bits
_SMALLEST = 2.0**-126  # of the normal numbers


def logarithm(x: Any, bind: Callable[[Any], Any] = T.Bind) -> Any:
    """TIR of one float32, or of a vector of them; of 0 -infinity, of NaN and what is below 0 NaN. bind: as of
    `exponential`."""
    dtype = str(x.ty)
    whole = dtype.replace("float32", "int32")

    def constant(value: float) -> Any:
        return tirx.const(value, dtype)

    small = x < constant(_SMALLEST)
    bits = bind(tirx.call_intrin(whole, "tirx.reinterpret", tirx.Select(small, x * constant(2.0**23), x)))
    n = bind(tirx.shift_right(bits - tirx.const(_ROOT_OF_HALF, whole), tirx.const(23, whole)))
    m = bind(tirx.call_intrin(dtype, "tirx.reinterpret", bits - tirx.shift_left(n, tirx.const(23, whole))))
    s = bind((m - constant(1)) / (m + constant(1)))
    series = _polynomial(_ODD, bind(s * s))
    k = bind(n.astype(dtype) - tirx.Select(small, constant(23), constant(0)))
    value = k * constant(_LOG_2[0]) + (constant(2) * s * series + k * constant(_LOG_2[1]))
    finite = tirx.Select(x < constant(math.inf), value, x)
    outside = tirx.Select(x >= constant(0), constant(-math.inf), constant(math.nan))
    return tirx.Select(x > constant(0), finite, outside)


def _polynomial(coefficients: Sequence[float], t: Any) -> Any:
    """coefficients: from that of t^0 on."""
    total = tirx.const(coefficients[-1], str(t.ty))
    for coefficient in coefficients[-2::-1]:
        total = total * t + tirx.const(coefficient, str(t.ty))
    return total


def _within(x: Any, low: Any, high: Any) -> Any:
    """x between these bounds; NaN stays."""
    return tirx.Select(x > high, high, tirx.Select(x < low, low, x))


def rational(x: Any, of: Rational) -> Any:
    """TIR of one float32, or of a vector of them."""

    def constant(value: float) -> Any:
        return tirx.const(value, str(x.ty))

    x = _within(x, constant(-of.limit), constant(of.limit))
    square = x * x
    value = x * _polynomial(of.numerator, square) / _polynomial(of.denominator, square)
    return _within(value, constant(-1), constant(1))
