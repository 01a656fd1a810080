"""What both importers make of operators that TVM computes wrongly, or has not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax


def hyperbolic(x: relax.Expr, *, sine: bool) -> relax.Expr:
    """sinh or cosh of floats, for which TVM generates no code."""
    of = expm1 if sine else relax.op.exp  # near 0 the difference of two exponentials has no digits left
    join = relax.op.subtract if sine else relax.op.add
    return relax.op.multiply(join(of(x), of(relax.op.negative(x))), relax.const(np.float32(0.5)))


def log1p(x: relax.Expr) -> relax.Expr:
    """log(1 + x) of floats, with the digits that 1 + x has no room for."""
    one = relax.const(np.float32(1))
    more = relax.op.add(x, one)
    log = relax.op.log(more)
    exact = relax.op.multiply(log, relax.op.divide(x, relax.op.subtract(more, one)))
    large = relax.op.where(relax.op.equal(more, x), log, exact)
    return relax.op.where(relax.op.equal(more, one), x, large)


def expm1(x: relax.Expr) -> relax.Expr:
    """exp(x) - 1 of floats, with the digits that the difference has lost near 0."""
    one = relax.const(np.float32(1))
    series = one
    for divisor in range(8, 1, -1):  # x (1 + x/2 (1 + x/3 (...)))
        series = relax.op.add(
            one, relax.op.multiply(relax.op.multiply(x, relax.const(np.float32(1 / divisor))), series)
        )
    near = relax.op.less(relax.op.abs(x), relax.const(np.float32(0.5)))
    return relax.op.where(near, relax.op.multiply(x, series), relax.op.subtract(relax.op.exp(x), one))


def of_truths(name: str, a: relax.Expr, b: relax.Expr) -> relax.Expr | None:
    """What the operator of this name computes of two tensors of truths, by operators that have code for them.

    TVM generates code that LLVM refuses for their sums, products, maxima and equality, and takes True for -1
    where they are compared. None for an operator that is right, or is none of truths.
    """
    op = relax.op
    neither = op.logical_not
    table: dict[str, Callable[[], relax.Expr]] = {
        "equal": lambda: neither(op.logical_xor(a, b)),
        "greater": lambda: op.logical_and(a, neither(b)),
        "greater_equal": lambda: op.logical_or(a, neither(b)),
        "less": lambda: op.logical_and(neither(a), b),
        "less_equal": lambda: op.logical_or(neither(a), b),
    }
    table |= dict.fromkeys(("multiply", "minimum", "bitwise_and"), lambda: op.logical_and(a, b))
    table |= dict.fromkeys(("add", "maximum", "bitwise_or"), lambda: op.logical_or(a, b))
    table |= dict.fromkeys(("not_equal", "bitwise_xor"), lambda: op.logical_xor(a, b))
    return table[name]() if name in table else None


def elu(x: relax.Expr, alpha: float, scale: float = 1.0, inner: float = 1.0) -> relax.Expr:
    """scale * x above 0, and below scale * alpha * (exp(inner * x) - 1) with the digits of small x."""

    def times(value: relax.Expr, factor: float) -> relax.Expr:
        return value if factor == 1 else relax.op.multiply(value, relax.const(np.float32(factor)))

    below = times(expm1(times(x, inner)), alpha * scale)
    return relax.op.where(relax.op.greater(x, relax.const(np.float32(0))), times(x, scale), below)


def has_infinities(values: np.ndarray) -> bool:
    """Whether a mask of such values may make whole rows infinite."""
    return values.dtype.kind == "f" and bool(np.isinf(values).any())


def with_infinities(extremum: relax.Expr, *, greatest: bool) -> relax.Expr:
    """The greatest or least of numbers that may all be infinite: TVM begins with the last finite one."""
    if not str(extremum.ty.dtype.dtype).startswith("float"):
        return extremum
    last, beyond = np.finfo(np.float32).min, -np.float32(np.inf)
    if not greatest:
        last, beyond = -last, -beyond
    none = relax.op.equal(extremum, relax.const(np.float32(last)))
    return relax.op.where(none, relax.const(beyond), extremum)


def weighed(x: relax.Expr, rank: int, axis: int, matrix: np.ndarray) -> relax.Expr:
    """Sums of elements along an axis: [..., size, ...] by float32 [size, out] to [..., out, ...]."""
    order = np.argsort(matrix == 0, axis=0, kind="stable")  # the elements that count come first
    taps = int((matrix != 0).sum(0).max())
    total = None
    for index in order[:taps]:
        weights = matrix[index, np.arange(matrix.shape[1])]
        term = relax.op.take(x, relax.const(index.astype("int64")), axis)
        if not (weights == 1).all():
            aligned = weights.reshape(-1, *[1] * (rank - axis - 1))
            term = relax.op.multiply(term, relax.const(aligned))
        total = term if total is None else relax.op.add(total, term)
    return total
