"""sign(f(dot)) -> one integer comparison per channel, so that activations stay packed from layer to layer.

Between an integer dot product d and the next sign stand, per channel c, a scale, a bias, batch norm,
Hardtanh, a mask that is known: a chain f of operators each of which is monotone in its input for a fixed c.
Rounding to float32 is monotone too, so the truth of `f(d) >= t` over the integers d changes at most once,
upwards or downwards:

    f rises:  f(d) >= t  <=>  d >= T            f falls:  f(d) >= t  <=>  not (d >= T)

T is found by bisection on f itself, evaluated in float32 in the network's own order. So no algebra can go
wrong: a negative scale makes f fall; a scale of 0 makes it constant; a threshold outside of what the sum can
reach puts T at an end of the range, and the bit is always 1 or always 0. In each case the folded bit is the
bit that the float chain gives, for every d.

A PReLU of two slopes that are nowhere negative is one link of the chain: 0 at 0, and rising on both sides.

A GELU falls before it rises, so that behind one the truth may change twice. Then it is computed for every
sum, and is a comparison with each of two integers:

    f(d) >= t  <=>  d < L or d >= U,  or the opposite where f is turned.

Max pooling may stand in the chain: the largest of some numbers is above a threshold where any of them is. So
truths are taken before the pool, and it is one of packed bits. With f before the pool and h for the whole,

    f and h rise, or both fall:  h(max f(d)) is the truth of any h(d)      else:  that of all of them,

and all of them hold where not any does not.

Requires: packings of truths, as `find_binary` leaves them, with the operators between in the order of the
source.
Ensures: a packing that can read integers does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.operators import BinaryConvolution, Pack, attributes_of, call
from relay_passes.ir.rewrite import dtype_of, is_call, made_by, rewrite, shape_of
from relay_passes.ir.sum_functions import Link, chain_of, falls, overflows, reach_of, value_at, values_at
from relay_passes.ir.windows import window_of
from schedules.kernels.pooling import Pooling
from schedules.parts.bits import pack

_MOST_VALUES = 1 << 21  # of all sums and channels that are computed at most, which takes less than a second


def fold_thresholds(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "bibench.pack") or dtype_of(value.args[0]) != "bool":
        return value
    found = _chain(builder, value.args[0])
    if found is None:
        return value
    dot, before, pool, after = found
    channels = shape_of(dot)[-1]
    if any(link.dips for link in before + after):
        either = _two_comparisons(builder, dot, after) if pool is None else None
        return value if either is None else relax.Call(value.op, [either], value.attrs, value.ty_args)
    reach = reach_of(made_by(builder, dot)) + 1
    if overflows(before + after, channels, reach):
        return value
    threshold, turned = _bisect(before + after, channels, reach)
    # Channels whose truths are turned before they are packed: where there is a pool, which finds out whether
    # any holds, those in which f falls.
    inner = turned if pool is None else falls(before, channels, reach)
    bits = builder.emit(relax.op.greater_equal(dot, relax.const(threshold.astype(np.int32))))
    if inner.any():
        bits = builder.emit(relax.op.logical_xor(bits, relax.const(inner)))
    packed = relax.Call(value.op, [bits], value.attrs, value.ty_args)
    if pool is None:
        return packed
    packing = attributes_of(value, Pack).packing
    window = replace(
        window_of(pool, shape_of(pool)),
        channels=packing.words,
        out_channels=packing.words,
        groups=packing.words,
    )
    words = builder.emit(packed)
    pooled = call("bibench.pool", words, attributes=Pooling(window, packing.dtype, of_bits=True))
    outer = turned != inner
    if not outer.any():
        return pooled
    mask = pack(outer[None, None, None], packing)
    return relax.op.bitwise_xor(builder.emit(pooled), relax.const(mask))


def _two_comparisons(builder: relax.BlockBuilder, dot: relax.Var, links: list[Link]) -> relax.Var | None:
    """The chain's truth as comparisons of the sum, found by computing it for each; None where they are too
    many, or where that is no such truth."""
    sums = _sums(made_by(builder, dot))
    channels = shape_of(dot)[-1]
    if sums is None or len(sums) * channels > _MOST_VALUES:
        return None
    values = values_at(links, np.broadcast_to(sums[:, None], (len(sums), channels)))
    if any(np.isnan(x).any() for x in values):
        return None
    truth = np.broadcast_to(values[-1], (len(sums), channels))
    for turned in (False, True):
        wanted = truth != turned
        least, last = sums[0], sums[-1]
        some = ~wanted.all(0)
        below = np.where(some, sums[np.argmin(wanted, 0)], least)
        above = np.where(some, last - np.argmin(wanted[::-1], 0) * (sums[1] - least) + 1, least)
        if np.array_equal((sums[:, None] < below) | (sums[:, None] >= above), wanted):
            break
    else:
        return None
    bits = builder.emit(relax.op.greater_equal(dot, relax.const(above.astype(np.int32))))
    if (below > least).any():
        low = builder.emit(relax.op.less(dot, relax.const(below.astype(np.int32))))
        bits = builder.emit(relax.op.logical_or(low, bits))
    return builder.emit(relax.op.logical_not(bits)) if turned else bits


def _sums(layer: relax.Call) -> np.ndarray | None:
    """All that this layer may give, and others, evenly spaced; None where they are not counted."""
    if not is_call(layer, "bibench.binary_convolution"):
        return None
    described = attributes_of(layer, BinaryConvolution)
    most = described.conv.products
    if described.zero_one or any(described.conv.padding):
        return np.arange(-2 * most, 2 * most + 1)
    return np.arange(-most, most + 1, 2)


def _chain(
    builder: relax.BlockBuilder, expr: relax.Expr
) -> tuple[relax.Expr, list[Link], relax.Call | None, list[Link]] | None:
    """(dot, links before the pool, the pool if any, links after it): from the dot product to this truth."""
    before: list[Link] = []
    pool: relax.Call | None = None
    expr, after = chain_of(builder, expr)
    made = made_by(builder, expr)
    if is_call(made, "relax.nn.max_pool2d") and made.attrs.layout == "NHWC":
        pool = made
        expr, before = chain_of(builder, made.args[0])
        made = made_by(builder, expr)
    # The sums of an int8 layer are read as floats besides, as a rule; to pool them twice would cost more.
    if is_call(made, "bibench.binary_convolution", "bibench.binary_product") or (
        is_call(made, "bibench.int8_convolution") and pool is None
    ):
        return expr, before, pool, after
    return None


def _bisect(links: list[Link], channels: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """(T int64 [C], falls bool [C]): the chain's truth at d is (d >= T) != falls, for all |d| <= reach."""
    low, high = np.full(channels, -reach), np.full(channels, reach)
    at_low = np.broadcast_to(value_at(links, low), (channels,))
    at_high = np.broadcast_to(value_at(links, high), (channels,))
    falls = at_low & ~at_high
    # invariant: the (turned) truth is false at `low` and true at `high`
    while (high - low > 1).any():
        middle = (low + high) // 2
        holds = value_at(links, middle) != falls
        high, low = np.where(holds, middle, high), np.where(holds, low, middle)
    constant = at_low == at_high
    return np.where(constant, np.where(at_low, -reach, reach + 1), high), falls
