"""erf and tanh as quotients of polynomials, which LLVM computes in vectors; its own are calls, one a number.

Each is x P(x^2) / Q(x^2), cut where the function is 1 in float32 anyway. The coefficients are a fit of ours,
with the smallest largest relative error; evaluated in float32 it is below 4e-7, mostly of the evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx


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


def rational(x: Any, of: Rational) -> Any:
    """TIR of one float32, or of a vector of them."""

    def constant(value: float) -> Any:
        return tirx.const(value, str(x.ty))

    def polynomial(coefficients: Sequence[float], t: Any) -> Any:
        total = constant(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            total = total * t + constant(coefficient)
        return total

    x = tirx.max(tirx.min(x, constant(of.limit)), constant(-of.limit))
    square = x * x
    value = x * polynomial(of.numerator, square) / polynomial(of.denominator, square)
    return tirx.max(tirx.min(value, constant(1)), constant(-1))
