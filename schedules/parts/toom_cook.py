"""The algorithm of Toom and Cook for short convolutions, as matrices and as TIR.

`outputs` neighbours y[j] = sum_k g[k] x[j + k], k < taps, are found from n = outputs + taps - 1 products
instead of outputs * taps:

    y = A^T [(G g) * (B^T x)]

The product of two polynomials with `taps` and `outputs` coefficients is known from its values at n - 1 points
a_i and from its leading coefficient, its value "at infinity". Lagrange's interpolation gives the coefficients
back, and the transpose of that algorithm makes the sums above. With N_i = prod_{k != i} (a_i - a_k),

    A^T[j, i] = a_i^j        G[i, k] = a_i^k / N_i        B^T[i] = coefficients of prod_{k != i} (x - a_k)

and at infinity unit vectors in A^T and G, and the coefficients of prod_k (x - a_k) in B^T.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import spread

# Of small fractions those that round best. A pair +-a shares half of its work.
PAIRS = (Fraction(1), Fraction(1, 2), Fraction(2))

Matrix = list[list[Fraction]]


def points(count: int) -> list[Fraction]:
    """The finite ones, pair by pair, and 0 where their number is odd."""
    return [sign * a for a in PAIRS[: count // 2] for sign in (1, -1)] + [Fraction(0)] * (count % 2)


def matrices(taps: int, outputs: int) -> tuple[Matrix, Matrix, Matrix]:
    """A^T [outputs, n], G [n, taps] and B^T [n, n], exactly."""
    at = points(outputs + taps - 2)
    others = [[b for b in at if b != a] for a in at]

    def polynomial(roots: list[Fraction]) -> list[Fraction]:
        """Coefficients of prod (x - root), from that of x^0 on."""
        made = [Fraction(1)]
        for root in roots:
            made = [a - root * b for a, b in zip([Fraction(0), *made], [*made, Fraction(0)], strict=True)]
        return made

    def last(extent: int) -> list[Fraction]:
        return [Fraction(0)] * (extent - 1) + [Fraction(1)]

    back = [[*(a**j for a in at), end] for j, end in enumerate(last(outputs))]
    scales = [prod(a - b for b in rest) for a, rest in zip(at, others, strict=True)]
    kernel = [[a**k / scale for k in range(taps)] for a, scale in zip(at, scales, strict=True)]
    values = [[*polynomial(rest), Fraction(0)] for rest in others]
    return back, [*kernel, last(taps)], [*values, polynomial(at)]


def _weighted(coefficients: list[Fraction], values: list[Any], lanes: int) -> Any:
    terms = [
        value if coefficient == 1 else value * spread(tirx.const(float(coefficient), "float32"), lanes)
        for coefficient, value in zip(coefficients, values, strict=True)
        if coefficient
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def values_at(rows: Matrix, read: list[Any], lanes: int) -> list[Any]:
    """B^T x. The rows of a pair are even and odd polynomials, added and subtracted."""
    paired = len(rows) - 1 - (len(rows) - 1) % 2
    made = []
    for plus, minus in zip(rows[:paired:2], rows[1:paired:2], strict=True):
        even = [(a + b) / 2 for a, b in zip(plus, minus, strict=True)]
        odd = [(a - b) / 2 for a, b in zip(plus, minus, strict=True)]
        same, other = T.Bind(_weighted(even, read, lanes)), T.Bind(_weighted(odd, read, lanes))
        made += [same + other, same - other]
    return made + [_weighted(row, read, lanes) for row in rows[paired:]]


def outputs_from(rows: Matrix, read: list[Any], lanes: int) -> list[Any]:
    """A^T m. The powers of a pair differ in the sign of the odd ones."""
    paired = len(read) - 1 - (len(read) - 1) % 2
    pairs = list(zip(read[:paired:2], read[1:paired:2], strict=True))
    sums, differences = [T.Bind(a + b) for a, b in pairs], [T.Bind(a - b) for a, b in pairs]
    return [
        _weighted(row[:paired:2] + row[paired:], (differences if j % 2 else sums) + read[paired:], lanes)
        for j, row in enumerate(rows)
    ]
