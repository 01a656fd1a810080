"""A layer of bits as operators: what it reads packed, its integers, and what these stand for.

See `find_binary.py` for the algebra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeGuard

import numpy as np
from tvm import relax

from relay_passes.ir.activations import Bits, is_zero_one, step_of
from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.operators import BinaryConvolution, Border, Contraction, Pack, Phase, call
from relay_passes.ir.permutations import turned_from
from relay_passes.ir.planes import Plane, Planes
from relay_passes.ir.rewrite import shape_of
from relay_passes.ir.three_valued import ThreeValued
from relay_passes.ir.truth import truth
from relay_passes.ir.two_valued import TwoValued
from relay_passes.ir.weights import BinaryWeights
from schedules.parts.bits import Packing
from schedules.parts.borders import inside_sums


class BinarySums:
    """Makes them for one network, in which each activation is packed once."""

    def __init__(self, numbers: BoundValues):
        self.numbers = numbers
        self._packed: dict[tuple, relax.Expr] = {}

    def pack(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: TwoValued | ThreeValued,
        groups: int,
        word: int,
        plane: int = 0,
    ) -> relax.Expr:
        """plane: 0 for two values; of three values 1 for what is above 0, and -1 for what is below; see
        `Plane`."""
        key = (x, groups, word, plane)
        if key not in self._packed:
            planes = turned_from(builder, x)
            channels = shape_of(x)[-1]
            source = x if planes is None else planes
            if isinstance(values, ThreeValued):
                bits = (values.above if plane > 0 else values.below)(source)
            else:
                bits = self.bits(builder, source, values)
            pack = Pack(packing=Packing(channels, word, groups), planar=planes is not None)
            self._packed[key] = builder.emit(call("bibench.pack", bits, attributes=pack))
        return self._packed[key]

    def bits(self, builder: relax.BlockBuilder, x: relax.Expr, values: TwoValued) -> relax.Expr:
        """Truths, where x has the higher of two values, or of 0 and another the other."""
        bits = values.bits(x) if isinstance(values, Plane) else truth(builder, x, values, self.numbers)
        return builder.emit(relax.op.logical_not(bits)) if values.high == 0.0 else bits

    def dot(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: TwoValued | ThreeValued,
        layer: Contraction,
        signs: np.ndarray,
        word: int,
        phase: Phase | None = None,
        of_input: bool = False,
        weight_plane: int = 0,
    ) -> relax.Expr:
        """The integer part of one convolution; the last three: see `BinaryConvolution`."""
        conv = layer.conv

        def dot(plane: int) -> relax.Expr:
            words = self.pack(builder, x, values, conv.groups, word, plane)
            binary = BinaryConvolution(
                **vars(layer),
                packing=Packing(conv.channels, word, conv.groups),
                zero_one=is_zero_one(values),
                plane=plane,
                part=(values.low, values.high) if isinstance(values, Plane) else None,
                phase=phase,
                levels=values.levels if isinstance(values, TwoValued) else None,
                of_input=of_input,
                weight_plane=weight_plane,
            )
            return builder.emit(
                call("bibench.binary_convolution", words, relax.const(signs), attributes=binary)
            )

        if isinstance(values, ThreeValued):
            return builder.emit(relax.op.subtract(dot(1), dot(-1)))
        return dot(values.index if isinstance(values, Plane) else 0)

    def scaled(
        self,
        builder: relax.BlockBuilder,
        total: relax.Expr,
        values: TwoValued | ThreeValued,
        weights: BinaryWeights,
    ) -> relax.Expr:
        scale = (weights.alpha * step_of(values)).astype(np.float32)
        result: relax.Expr = relax.op.astype(total, "float32")
        if (scale == 1).all():
            return result
        factor = scale[0] if (scale == scale[0]).all() else scale
        return relax.op.multiply(builder.emit(result), relax.const(factor))

    def of_parts(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: Bits,
        layer: Contraction,
        planes: Sequence[tuple[np.ndarray, BinaryWeights]],
        word: int,
        phase: Phase | None = None,
    ) -> relax.Expr:
        """The layer's result in float32: the sum over the parts of its operand and the planes of its weights,
        each with their signs int8 [O, KH, KW, C / groups]."""
        parts = values.parts if isinstance(values, Planes) else (values,)
        results = [
            self.shifted(builder, x, part, layer, signs, weights, word, phase, k if len(planes) > 1 else 0)
            for part in parts
            for k, (signs, weights) in enumerate(planes, 1)
        ]
        return reduce(lambda a, b: builder.emit(relax.op.add(a, b)), results)

    def shifted(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: TwoValued | ThreeValued,
        layer: Contraction,
        signs: np.ndarray,
        weights: BinaryWeights,
        word: int,
        phase: Phase | None = None,
        weight_plane: int = 0,
    ) -> relax.Expr:
        """The layer's result in float32, of {low, high} and of weights alpha s + beta."""
        conv, op = layer.conv, relax.op
        alpha, step = weights.alpha.astype(np.float64), float(step_of(values))
        beta = np.zeros_like(alpha) if weights.beta is None else weights.beta.astype(np.float64)

        def scaled(total: relax.Expr, scale: np.ndarray) -> relax.Expr:
            number = builder.emit(op.astype(total, "float32"))
            return builder.emit(op.multiply(number, relax.const(scale.astype(np.float32))))

        total = self.dot(builder, x, values, layer, signs, word, phase, weight_plane=weight_plane)
        result = scaled(total, step * alpha)
        if beta.any():
            channels = 1 if conv.groups == 1 else conv.out_channels
            summing = replace(layer, conv=replace(conv, out_channels=channels))
            ones = np.ones((channels, *signs.shape[1:]), np.int8)
            total = self.dot(builder, x, values, summing, ones, word, phase, of_input=True)
            result = builder.emit(op.add(result, scaled(total, step * beta)))
        if isinstance(values, TwoValued) and values.levels:
            middle = (values.low + values.high) / 2
            whole = signs * alpha[:, None, None, None] + beta[:, None, None, None]
            table, *classes = inside_sums(conv, middle * whole)
            if table[..., 0].size == 1:
                moved: relax.Expr = relax.const(table[0, 0].astype(np.float32))
            else:
                constants = [relax.const(c) for c in (table.astype(np.float32), *classes)]
                moved = builder.emit(call("bibench.border", *constants, attributes=Border()))
            result = builder.emit(op.add(result, moved))
        return result


def is_plain(values: Bits, weights: BinaryWeights) -> TypeGuard[TwoValued | ThreeValued]:
    """Whether a layer's result is a multiple of its integers."""
    if isinstance(values, Planes):
        return False
    return weights.beta is None and (isinstance(values, ThreeValued) or values.levels is None)
