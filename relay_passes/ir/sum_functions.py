"""What is computed of the integer sums of a layer, channel by channel: a chain of links, each of which rises
or falls with what it is made of.

Rounding to float32 is monotone too, so a chain rises or falls over all integers, which its values at both
ends tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.ir.operators import BinaryProduct, attributes_of
from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    shape_of,
)
from schedules.parts.epilogue import evaluate_operator
from schedules.parts.quantizer import LARGEST

_COMPARISONS = ("relax.greater_equal", "relax.greater", "relax.less_equal", "relax.less")
_DIPPING = ("relax.nn.gelu", "relax.nn.gelu_tanh")
# Monotone in each operand that is not a constant, for any constants in the others.
_MONOTONE = {
    "relax.add", "relax.subtract", "relax.multiply", "relax.maximum", "relax.minimum", "relax.clip",
    "relax.negative", "relax.nn.relu", "relax.tanh", "relax.sigmoid", "relax.logical_not", *_COMPARISONS,
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One operator of the chain, or several that are one function of what the chain carries to them.

    compute: of an array whose last axis is the channel's. dips: whether it is monotone in two parts only."""

    source: relax.Expr
    compute: Callable[[np.ndarray], np.ndarray]
    dips: bool = False


def chain_of(builder: relax.BlockBuilder, expr: relax.Expr) -> tuple[relax.Expr, list[Link]]:
    """(what it begins with, its links in order) of the longest chain that ends with this expression."""
    links: list[Link] = []
    while True:
        value = made_by(builder, expr)
        link = _prelu(builder, value) or _link(value)
        if link is None or shape_of(link.source) != shape_of(expr):
            return expr, links
        links.insert(0, link)
        expr = link.source


def _link(value: Any) -> Link | None:
    if (is_call(value, "relax.astype") and "float" in str(value.attrs.dtype)) or (
        is_call(value, "relax.nn.leakyrelu") and float(value.attrs.alpha) >= 0
    ):
        return Link(value.args[0], lambda x: evaluate_operator(value, [x]))
    if is_call(value, *_DIPPING):
        return Link(value.args[0], lambda x: evaluate_operator(value, [x]), dips=True)
    if (
        not is_call(value, *_MONOTONE)
        and not (is_call(value, "relax.divide") and _is_nowhere_0(value.args[1]))
        and not (is_call(value, "relax.where") and is_constant(value.args[0]))
    ):
        return None
    constants = [_per_channel(arg) for arg in value.args]
    moving = [i for i, constant in enumerate(constants) if constant is None]
    if len(moving) != 1 or any(
        c is not None and not np.isfinite(c.astype(np.float64)).all() for c in constants
    ):
        return None
    source = value.args[moving[0]]
    if not isinstance(source, relax.Var):
        return None
    return Link(source, lambda x: evaluate_operator(value, [x if c is None else c for c in constants]))


def _is_nowhere_0(arg: relax.Expr) -> bool:
    return is_constant(arg) and bool(constant_value(arg).all())


def _prelu(builder: relax.BlockBuilder, value: Any) -> Link | None:
    """where(x > 0, x * above, x * below), of which either factor may be left out."""
    if not is_call(value, "relax.where"):
        return None
    condition = made_by(builder, value.args[0])
    if not is_call(condition, "relax.greater", "relax.greater_equal"):
        return None
    x, zero = condition.args
    bound = _per_channel(zero)
    if not isinstance(x, relax.Var) or dtype_of(x) != "float32" or bound is None or bound.any():
        return None
    above, below = (_slope(builder, side, x) for side in value.args[1:])
    if above is None or below is None:
        return None
    return Link(x, lambda numbers: np.where(numbers > 0, numbers * above, numbers * below))


def _slope(builder: relax.BlockBuilder, side: relax.Expr, x: relax.Var) -> np.ndarray | None:
    """[C] or [1]: what x is multiplied with; None where it is not, or falls somewhere."""
    if side.same_as(x):
        return np.ones(1, np.float32)
    made = made_by(builder, side)
    if not is_call(made, "relax.multiply"):
        return None
    factors = [_per_channel(arg) for arg in made.args if not arg.same_as(x)]
    slope = factors[0] if len(factors) == 1 else None
    return slope if slope is not None and np.isfinite(slope).all() and (slope >= 0).all() else None


def _per_channel(arg: relax.Expr) -> np.ndarray | None:
    """A constant that depends on the channel, the last axis, at most: [C] or [1]."""
    if not is_tensor(arg):
        return np.asarray([float(arg.value)], np.float32)
    if not is_constant(arg):
        return None
    values = constant_value(arg)
    return values.reshape(-1) if values.size == (values.shape[-1] if values.ndim else 1) else None


def values_at(links: list[Link], d: np.ndarray) -> list[np.ndarray]:
    """What each link of the chain gives at one integer per channel, the integers first."""
    values = [d.astype(np.int32)]
    with np.errstate(all="ignore"):
        for link in links:
            values.append(link.compute(values[-1]))
    return values


def value_at(links: list[Link], d: np.ndarray) -> np.ndarray:
    return values_at(links, d)[-1]


def overflows(links: list[Link], channels: int, reach: int) -> bool:
    """Whether the chain comes to infinities that meet their opposites: such a one neither rises nor falls."""
    ends = (np.full(channels, end) for end in (-reach, reach))
    return any(np.isnan(x).any() for end in ends for x in values_at(links, end))


def falls(links: list[Link], channels: int, reach: int) -> np.ndarray:
    """bool [C]: where the chain, which does not overflow, falls; else it rises or stays."""
    low, high = (value_at(links, np.full(channels, end)) for end in (-reach, reach))
    return np.broadcast_to(high < low, (channels,))


def reach_of(layer: relax.Call) -> int:
    """No sum of this layer has a larger magnitude."""
    if is_call(layer, "bibench.binary_product"):
        return 4 * attributes_of(layer, BinaryProduct).conv.products  # doubled for each side over {0, 1}
    products = int(np.prod(shape_of(layer.args[1])[1:]))
    return products * (LARGEST**2 if is_call(layer, "bibench.int8_convolution") else 2)
