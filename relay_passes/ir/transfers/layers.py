"""Convolutions and matrix products, of TVM and of ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from relay_passes.ir.operators import BinaryConvolution, BinaryProduct, Contraction, attributes_of
from relay_passes.ir.rewrite import constant_value
from relay_passes.ir.transfers.operands import (
    INF,
    SUM,
    Operands,
    Transfer,
    collapsed,
)
from relay_passes.ir.value_range import (
    Array,
    ValueRange,
    affine,
    array,
    common_divisor,
    interval,
    lattice,
    one_lattice,
    point,
    product,
    repeated,
    times,
)

SMALL_WINDOW = 16
"""A sum of fewer products than this is 0 as a matter of course where its operands are. In a larger window all
of them are 0 at once by accident only."""


def _weight_unit(flat: Array) -> Array | None:
    """[O]: of which number every weight of a channel is a whole multiple; None where one has none such."""
    magnitudes = np.abs(flat)
    unit = np.where(magnitudes > 0, magnitudes, INF).min(1)
    unit = np.where(np.isfinite(unit), unit, 1.0)
    if (flat == np.rint(flat)).all() and magnitudes.max(initial=0) < 2**20:
        whole = np.gcd.reduce(magnitudes.astype(np.int64), axis=1)
        return np.maximum(whole, 1).astype(np.float64)
    ratio = magnitudes / unit[:, None]
    return unit if (np.abs(ratio - np.rint(ratio)) < 1e-5).all() and ratio.max(initial=0) < 2**16 else None


def _dot(x: ValueRange, weights: Array, ragged: bool, empty: bool) -> ValueRange:
    """sum_k w[o, k] x_k with arrays [O]; ragged: at a border some terms are missing; empty: all of them."""
    x = collapsed(x)
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    low = np.minimum(x.low, 0) if ragged else x.low
    high = np.maximum(x.high, 0) if ragged else x.high
    bounds = _extreme(positive, low, negative, high), _extreme(positive, high, negative, low)
    outside = (point(0, "a padding"),) if empty else ()
    if flat.shape[1] < SMALL_WINDOW and (cause := x.zero_cause()):
        outside = (*outside, point(0, cause))
    if flat.shape[1] == 1:
        scaled = affine(x, flat[:, 0], array(0))
        return replace(scaled, low=bounds[0], high=bounds[1], common=(*scaled.common, *outside))
    whole, unit = one_lattice(x), _weight_unit(flat)
    if whole is None or unit is None:
        if unit is not None and not x.continuous:  # of several lattices, each of which may cancel out
            outside = (*outside, point(0, SUM))
        return ValueRange(*bounds, outside)
    step, offset, _ = whole
    steps, offsets = step * unit, offset * flat.sum(1)
    if ragged:
        steps, offsets = common_divisor(steps, offset * unit), np.zeros(len(unit))
    chance = bool(x.accidental)
    sums = replace(lattice(*bounds, steps, offsets, SUM), continuous=chance)
    return replace(sums, common=(*sums.common, *outside))


def _extreme(positive: Array, low: Array, negative: Array, high: Array) -> Array:
    """positive * low + negative * high, where 0 times infinity is 0."""
    return times(positive, low) + times(negative, high)


def _convolution(o: Operands) -> ValueRange:
    """bibench.convolution: channels last."""
    conv = attributes_of(o.call, Contraction).conv
    reach = [(k - 1) * d + 1 for k, d in zip(conv.kernel, conv.dilation, strict=True)]
    empty = any(p >= r for p, r in zip(conv.padding, reach * 2, strict=True))
    return _dot(o[0], constant_value(o.call.args[1]), any(conv.padding), empty)


def _matmul_constant(o: Operands) -> ValueRange:
    return _dot(o[0], constant_value(o.call.args[1]), False, False)


def _transposed(o: Operands) -> ValueRange:
    """Has windows without a term."""
    return _dot(o[0], constant_value(o.call.args[1]), True, True)


def _foreign_convolution(o: Operands) -> ValueRange:
    """Of TVM's own, channels in the second place. A transposed one has windows without a term."""
    weights = o.number(1)
    if weights is None:
        return _product_of(o[0], o[1], 2)
    transposed = "transpose" in o.call.op.name
    if transposed:
        groups = int(o.attrs.groups)
        weights = np.moveaxis(weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:]), 2, 1)
        weights = weights.reshape(groups * weights.shape[1], -1)
    padding = [int(p) for p in o.attrs.padding]
    sums = _dot(o[0], weights, transposed or any(padding), transposed)
    spread = (-1,) + (1,) * (len(o.shape) - 2)
    return sums.map_arrays(lambda a: a if a.size == 1 else a.reshape(spread))


def _binary_convolution(o: Operands) -> ValueRange:
    """Integers: of K signs; or doubled, of those of them that meet a 1."""
    signs = constant_value(o.call.args[1])
    count = signs[0].size
    layer = attributes_of(o.call, BinaryConvolution)
    ragged = any(layer.conv.padding)
    if layer.zero_one:
        return lattice(-2 * count, 2 * count, 2, 0, SUM)
    return lattice(-count, count, 1 if ragged else 2, 0 if ragged else count, SUM)


def _int8_convolution(o: Operands) -> ValueRange:
    return lattice(-INF, INF, 1, 0, SUM)


def _binary_product(o: Operands) -> ValueRange:
    layer = attributes_of(o.call, BinaryProduct)
    depth = layer.conv.channels
    if any(layer.zero_one):  # a whole number, doubled for each
        step = 2 ** sum(layer.zero_one)
        return lattice(0 if all(layer.zero_one) else -step * depth, step * depth, step, 0, SUM)
    return lattice(-depth, depth, 2, depth, SUM)


def _product_of(a: ValueRange, b: ValueRange, depth: int) -> ValueRange:
    """Sums of `depth` products of two activations."""
    each = product(collapsed(a), collapsed(b))
    return collapsed(repeated(each, depth)) if depth == 1 or not each.continuous else interval(
        0 if each.not_negative else -INF, INF)  # fmt: skip


def _product(o: Operands) -> ValueRange:
    return _product_of(o[0], o[1], o.shape_of(0)[-1])


TRANSFERS: dict[str, Transfer] = {
    **{
        f"relax.nn.conv{n}d{kind}": _foreign_convolution for n in (1, 2, 3) for kind in ("", "_transpose")
    },
    "bibench.convolution": _convolution, "bibench.transposed_convolution": _transposed,
    "bibench.matmul": _matmul_constant, "bibench.product": _product,
    "relax.matmul": _product, "bibench.named": lambda o: o[0],
    "bibench.binary_convolution": _binary_convolution,
    "bibench.int8_convolution": _int8_convolution, "bibench.binary_product": _binary_product,
}  # fmt: skip
