"""Arithmetic, element by element."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.rewrite import constant_value, dtype_of, is_call, is_constant, is_tensor, made_by
from relay_passes.ir.transfers.operands import (
    INF,
    RECTIFIER,
    Operands,
    Transfer,
    unknown,
)
from relay_passes.ir.value_range import (
    Array,
    ValueRange,
    Zero,
    affine,
    array,
    clipped,
    common_divisor,
    image,
    interval,
    lattice,
    one_lattice,
    point,
    product,
    total,
    union,
)


def _softplus(a: Array) -> Array:
    return np.logaddexp(0.0, a)


def _sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def _erf(a: Array) -> Array:
    from math import erf

    return np.vectorize(erf, otypes=[float])(a)


def _negative(o: Operands) -> ValueRange:
    return affine(o[0], array(-1), array(0))


def _add(o: Operands, sign: float = 1.0) -> ValueRange:
    a, b = o.number(0), o.number(1)
    if b is not None:
        return affine(o[0], array(1), sign * b)
    if a is not None:
        return affine(o[1], array(sign), a)
    if (rest := _without_detour(o)) is not None:
        return rest
    if o.call.args[0].same_as(o.call.args[1]):
        return affine(o[0], array(1 + sign), array(0))
    first, second = o[0], affine(o[1], array(sign), array(0))
    if is_call(o.value(1), "relax.abs") and made_by(o.builder, o.value(1).args[0]) is o.value(0):
        return ValueRange(array(0), first.high + second.high, (point(0, RECTIFIER),))  # x + |x|
    if (x := _take_turns(o)) is not None:
        return _zero_at_zero(o.numbers_of(o.builder, x), first.low + second.low, first.high + second.high)
    return total(first, second)


def _subtract(o: Operands) -> ValueRange:
    return _add(o, -1.0)


_MOST_TERMS = 12


def _without_detour(o: Operands) -> ValueRange | None:
    """Of a sum in which something is added and taken away again, as straight-through estimators are written:
    the rest, but for rounding. None for any other."""
    signs = {"relax.add": (1, 1), "relax.subtract": (1, -1)}
    terms: Counter[relax.Expr] = Counter()
    waiting = list(zip(o.call.args, signs[o.call.op.name], strict=True))
    while waiting:
        expr, sign = waiting.pop()
        made = made_by(o.builder, expr)
        if is_call(made, *signs):
            waiting += [(a, sign * s) for a, s in zip(made.args, signs[made.op.name], strict=True)]
        else:
            terms[expr] += sign
        if len(terms) + len(waiting) > _MOST_TERMS:
            return None
    if all(count or is_constant(term) for term, count in terms.items()):
        return None
    rest = [(term, count) for term, count in terms.items() if count]
    ranges = [affine(o.numbers_of(o.builder, term), array(count), array(0)) for term, count in rest]
    return reduce(total, ranges) if ranges else lattice(0, 0, 0, 0, "a difference of equals")


def _take_turns(o: Operands) -> relax.Expr | None:
    """x where this adds two rectifiers of which one is 0 at a time: elu(x), selu and leaky relu in parts."""
    inner = []
    for i in (0, 1):
        value = o.value(i)
        while is_call(value, "relax.multiply") and any(is_constant(arg) for arg in value.args):
            value = made_by(o.builder, next(arg for arg in value.args if not is_constant(arg)))
        if not is_call(value, "relax.nn.relu"):
            return None
        inner.append(value.args[0])
    for one, other in (inner, inner[::-1]):
        opposite = made_by(o.builder, other)
        if is_call(opposite, "relax.subtract"):  # 1 - exp(x)
            opposite = made_by(o.builder, opposite.args[1])
        if is_call(opposite, "relax.negative", "relax.exp") and opposite.args[0].same_as(one):
            return one
    return None


def _zero_at_zero(x: ValueRange, low: Array | float, high: Array | float) -> ValueRange:
    """A function of x within [low, high] that is 0 where x is, and nowhere else but by accident."""
    return image(x, lambda at: np.where(at == 0, 0.0, np.nan), low, high)


def _multiply(o: Operands) -> ValueRange:
    for i in (0, 1):
        factor = o.number(i)
        if factor is not None:
            return affine(o[1 - i], factor, array(0))
    if o.call.args[0].same_as(o.call.args[1]):
        return _square(o)
    for i in (0, 1):
        if (half := _half(o, 1 - i, o.call.args[i])) is not None:  # x * (x > 0)
            return union([half, lattice(0, 0, 0, 0, RECTIFIER)])
    return product(o[0], o[1])


def _half(o: Operands, i: int, x: relax.Expr) -> ValueRange | None:
    """x where operand i, the truth of a comparison of x with a number as 0 or 1, is 1."""
    value = o.value(i)
    if is_call(value, "relax.astype"):
        value = made_by(o.builder, value.args[0])
    return _where_true(o, value, x, True)


def _where_true(o: Operands, condition: Any, x: relax.Expr, truth: bool) -> ValueRange | None:
    """The numbers of x where this comparison of x with a number is `truth`; None if it is another thing."""
    names = ("relax.greater", "relax.greater_equal", "relax.less", "relax.less_equal")
    if not is_call(condition, *names) or not is_tensor(x):
        return None
    left, right = condition.args
    above = condition.op.name.startswith("relax.greater")
    if not left.same_as(x):
        left, right, above = right, left, not above
    if not left.same_as(x) or not is_constant(right):
        return None
    limit = constant_value(right).astype(np.float64)
    known = o.numbers_of(o.builder, x)
    if above == truth:
        return replace(known, low=np.maximum(known.low, limit), high=np.maximum(known.high, limit))
    return replace(known, high=np.minimum(known.high, limit), low=np.minimum(known.low, limit))


def _square(o: Operands) -> ValueRange:
    x = o[0]
    high = np.maximum(x.low**2, x.high**2)
    return image(
        x, np.square, np.where((x.low <= 0) & (x.high >= 0), 0, np.minimum(x.low**2, x.high**2)), high
    )


def _abs(o: Operands) -> ValueRange:
    x = o[0]
    both = union([x, affine(x, array(-1), array(0))])
    low = np.where((x.low <= 0) & (x.high >= 0), 0, np.minimum(np.abs(x.low), np.abs(x.high)))
    return replace(both, low=low)


def _divide(o: Operands) -> ValueRange:
    by = o.number(1)
    if by is not None and (by != 0).all():
        return affine(o[0], 1 / by, array(0))
    a, b = o[0], o[1]
    zeros = tuple(
        point(np.where(s.holds_zero(), 0.0, np.nan), s.cause) for s in a.common if s.holds_zero().any()
    )
    same_side = a.not_negative and b.not_negative
    return ValueRange(array(0 if same_side else -INF), array(INF), zeros)


def _maximum(o: Operands) -> ValueRange:
    for i in (0, 1):
        if (limit := o.number(i)) is not None:
            return clipped(o[1 - i], limit, INF, RECTIFIER)
    both = union([o[0], o[1]])
    return replace(both, low=np.maximum(o[0].low, o[1].low))


def _minimum(o: Operands) -> ValueRange:
    for i in (0, 1):
        if (limit := o.number(i)) is not None:
            return clipped(o[1 - i], -INF, limit, RECTIFIER)
    both = union([o[0], o[1]])
    return replace(both, high=np.minimum(o[0].high, o[1].high))


def _relu(o: Operands) -> ValueRange:
    return clipped(o[0], 0, INF, RECTIFIER)


def _relu6(o: Operands) -> ValueRange:
    return clipped(o[0], 0, 6, RECTIFIER)


def _clip(o: Operands) -> ValueRange:
    low, high = o.number(1), o.number(2)
    return clipped(o[0], -INF if low is None else low, INF if high is None else high, RECTIFIER)


def _where(o: Operands) -> ValueRange:
    condition = o.value(0)
    branches = []
    for i, truth in ((1, True), (2, False)):
        narrowed = _where_true(o, condition, o.call.args[i], truth)
        branches.append(o[i] if narrowed is None else narrowed)
    always = o[0]
    if (always.low >= 1).all():
        return branches[0]
    return branches[1] if (always.high <= 0).all() else union(branches)


def _leaky(o: Operands) -> ValueRange:
    """0 at 0 and nowhere else, whatever the slope below 0 is but 0."""
    slope = float(o.attrs.alpha) if is_call(o.call, "relax.nn.leakyrelu") else o.number(1)
    x = o[0]
    if slope is None or np.ndim(slope):
        both = _zero_at_zero(x, 0 if x.not_negative else -INF, INF)
        flat = slope is None or not np.all(slope)
        return replace(both, common=(*both.common, point(0, RECTIFIER))) if flat else both
    below = affine(x, array(slope), array(0))
    both = union([x, below])
    return replace(both, low=np.minimum(np.minimum(x.low, below.low), np.maximum(x.low, 0)))


def _sign(o: Operands) -> ValueRange:
    x = o[0]
    signs = lattice(np.sign(x.low), np.sign(x.high), 2, 1, "a sign")
    zero = point(0, x.zero_cause() or "a sign")
    if x.zero is Zero.COMMON:
        return replace(signs, common=(*signs.common, zero))
    return replace(signs, accidental=(zero,) if x.zero is Zero.ACCIDENTAL else ())


def _monotone(function: Callable[[Array], Array]) -> Transfer:
    """Rising functions."""

    def transfer(o: Operands) -> ValueRange:
        x = o[0]
        with np.errstate(all="ignore"):
            low, high = function(x.low), function(x.high)
        # In float32 these vanish, as the exponential of -200 does.
        low, high = (np.where(np.abs(end) < 1e-6, 0.0, end) for end in (low, high))
        return image(x, function, np.where(np.isnan(low), -INF, low), np.where(np.isnan(high), INF, high))

    return transfer


def within(low: float, high: float, function: Callable[[Array], Array] | None = None) -> Transfer:
    """Other functions, with what they can reach; function: where single numbers go; None: anywhere."""

    def transfer(o: Operands) -> ValueRange:
        return interval(low, high) if function is None else image(o[0], function, low, high)

    return transfer


def _dips(least: float) -> Transfer:
    """Rectifiers that are 0 at 0, dip to `least` below it and follow x above: gelu, silu."""

    def transfer(o: Operands) -> ValueRange:
        x = o[0]
        low, high = np.where(x.low >= 0, 0, least), np.maximum(x.high, 0)
        return image(x, lambda at: np.where(at == 0, 0.0, np.nan), low, high)

    return transfer


def _rounded(function: Callable[[Array], Array]) -> Transfer:
    def transfer(o: Operands) -> ValueRange:
        x = o[0]
        return lattice(function(x.low), function(x.high), 1, 0, "a rounding")

    return transfer


def _astype(o: Operands) -> ValueRange:
    x, before = o[0], dtype_of(o.call.args[0])
    if o.dtype == "bool" and before != "bool":
        return _truth(o)
    if "float" in before and "int" in o.dtype:
        return lattice(np.trunc(x.low), np.trunc(x.high), 1, 0, "a rounding")
    return x


_COMPARISONS = {
    "relax.greater": np.greater,
    "relax.greater_equal": np.greater_equal,
    "relax.less": np.less,
    "relax.less_equal": np.less_equal,
}


def _truth(o: Operands) -> ValueRange:
    """0 or 1; one of them where a comparison with a number has but one answer."""
    compare = _COMPARISONS.get(o.call.op.name)
    for i in (0, 1):
        if compare is None or (limit := o.number(i)) is None:
            continue
        x = o[1 - i]
        answers = [compare(end, limit) if i else compare(limit, end) for end in (x.low, x.high)]
        low, high = np.minimum(*answers), np.maximum(*answers)
        return lattice(low, high, 1, 0, "a comparison")
    return lattice(0, 1, 1, 0, "a comparison")


def _power(o: Operands) -> ValueRange:
    exponent = o.number(1)
    if exponent is not None and exponent.size == 1:
        power = float(exponent.reshape(()))
        if power == 2:
            return _square(o)
        even = power % 2 == 0
        low = 0 if even or o[0].not_negative or power % 1 else -INF
        return image(o[0], lambda at: np.where(at == 0, 0.0 if power > 0 else np.nan, np.nan), low, INF)
    return interval(0, INF) if o[0].not_negative else unknown(o.call.op.name)


def _modulo(o: Operands) -> ValueRange:
    by = o.number(1)
    if by is None or not (by > 0).all():
        return unknown(o.call.op.name)
    whole = one_lattice(o[0])
    if whole is None:
        return _zero_at_zero(o[0], 0, by)
    step = common_divisor(common_divisor(array(whole[0]), array(whole[1])), by)
    return lattice(0, by, step, 0, whole[2])


TRANSFERS: dict[str, Transfer] = {
    **dict.fromkeys(
        ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "logical_and", "logical_or",
         "logical_not", "logical_xor", "isnan", "isinf", "isfinite", "one_hot"), _truth),
    "astype": _astype, "add": _add, "subtract": _subtract, "multiply": _multiply, "divide": _divide,
    "negative": _negative, "maximum": _maximum, "minimum": _minimum, "nn.relu": _relu, "nn.relu6": _relu6,
    "clip": _clip, "where": _where, "nn.leakyrelu": _leaky, "nn.prelu": _leaky, "sign": _sign, "abs": _abs,
    "square": _square, "power": _power, "floor_mod": _modulo, "mod": _modulo,
    "tanh": _monotone(np.tanh), "sinh": _monotone(np.sinh), "asinh": _monotone(np.arcsinh),
    "atan": _monotone(np.arctan), "erf": _monotone(_erf), "exp": _monotone(np.exp),
    "sigmoid": _monotone(_sigmoid), "nn.softplus": _monotone(_softplus), "log": _monotone(np.log),
    "sqrt": _monotone(np.sqrt), "nn.selu": _monotone(lambda a: np.where(a > 0, a, np.expm1(a))),
    "rsqrt": within(0, INF), "sin": within(-1, 1, np.sin), "cos": within(-1, 1, np.cos),
    "cosh": within(1, INF), "acos": within(0, np.pi), "asin": within(-np.pi / 2, np.pi / 2, np.arcsin),
    "nn.gelu": _dips(-0.2), "nn.gelu_tanh": _dips(-0.2), "nn.silu": _dips(-0.3),
    "round": _rounded(np.rint), "floor": _rounded(np.floor), "ceil": _rounded(np.ceil),
    "trunc": _rounded(np.trunc),
}  # fmt: skip
