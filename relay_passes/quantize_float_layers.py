"""Compute the layers that stay float in 8-bit integers.

convolution(x, w)  ->  s_x * s_w[o] * astype(int8_convolution(quantize(x, s_x), round(w / s_w)))

Symmetric: s_x is the largest magnitude of x seen in calibration over 127, for the whole tensor; s_w[o] that
of the weights of one output channel. The sums are exact in 32 bits.

Requires: that `find_binary` has run; a range for each layer that is to be quantized.
Ensures: those layers are `bibench.int8_convolution` with a halo of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.layers import Layer
from relay_passes.ir.operators import Contraction, Int8Convolution, Pack, attributes_of, call
from relay_passes.ir.rewrite import constant_value, dtype_of, is_call, is_constant, rewrite, shape_of
from relay_passes.ir.weights import TwoLevels
from relay_passes.kernels.stored_weights import bytes_in_bits, in_bits
from schedules.kernels.convolution import bytes_after
from schedules.kernels.depthwise import is_depthwise
from schedules.parts.bits import Packing
from schedules.parts.quantizer import LARGEST, Quantizer
from schedules.targets.dot_products import PLAIN
from schedules.targets.kernel_target import KernelTarget

LAYERS = ("bibench.convolution", "bibench.matmul")


def quantize_float_layers(
    mod: tvm.IRModule, target: KernelTarget, ranges: Mapping[str, float], layers: Sequence[Layer]
) -> tuple[tvm.IRModule, tuple[Layer, ...]]:
    """The module and the layers, corrected.

    ranges: layer -> largest magnitude of its input; layers: what `find_binary` found.
    """
    quantized: dict[tuple, relax.Expr] = {}
    weight_bytes: dict[str, int] = {}

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if not is_quantizable(value):
            return value
        x, w = value.args
        layer = attributes_of(value, Contraction)
        conv = layer.conv
        weights, scales = quantize_weights(constant_value(w).reshape(conv.out_channels, *conv.kernel, -1))
        step = np.float32(ranges[layer.name] / LARGEST or 1)
        dot = PLAIN if is_depthwise(conv, packed=False) else target.dot
        packing = Packing(conv.channels, 8, quantizer=Quantizer(float(step), dot.zero_point))
        key = (x, packing)
        if key not in quantized:
            quantized[key] = builder.emit(call("bibench.pack", x, attributes=Pack(packing=packing)))
        integer = Int8Convolution(**vars(layer), packing=packing, bytes_after=bytes_after(conv, dot.word))
        sums = call("bibench.int8_convolution", quantized[key], relax.const(weights), attributes=integer)
        stored = isinstance(in_bits(weights, conv, target), TwoLevels)
        weight_bytes[layer.name] = bytes_in_bits(weights) if stored else weights.size
        floats = builder.emit(relax.op.astype(builder.emit(sums), "float32"))
        return relax.op.multiply(floats, relax.const(step * scales))

    module = rewrite(mod, visit)
    return module, tuple(_corrected(layer, ranges, weight_bytes) for layer in layers)


def _corrected(layer: Layer, ranges: Mapping[str, float], weight_bytes: Mapping[str, int]) -> Layer:
    if layer.name in weight_bytes:
        return replace(layer, dtype="int8", weight_bytes=weight_bytes[layer.name])
    if not layer.binarized and layer.name not in ranges:
        return replace(layer, notes="It stays float32: there is no int8 kernel for it")
    return layer


def is_quantizable(value: relax.Expr) -> bool:
    """Whether this is a float layer whose sums fit into 32 bits."""
    if not is_call(value, *LAYERS) or not is_constant(value.args[1]) or dtype_of(value.args[0]) != "float32":
        return False
    products = int(np.prod(shape_of(value.args[1])[1:]))
    return products * LARGEST**2 < 2**31 - 1


def quantize_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [O, ...] -> (int8 [O, ...], float32 [O]): weights ~ integers * scales."""
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)))
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    steps = weights / scales.reshape(-1, *[1] * (weights.ndim - 1))
    return np.clip(np.rint(steps), -LARGEST, LARGEST).astype(np.int8), scales
