"""Compute the layers that stay float in 8-bit integers.

convolution(x, w)  ->  s_x * s_w[o] * astype(int8_convolution(quantize(x, s_x), round(w / s_w)))

Symmetric: s_x is the largest magnitude of x seen in calibration over 127, for the whole tensor; s_w[o] that
of the weights of one output channel. The sums are exact in 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from relay_passes.layers import Layer
from relay_passes.operators import call, convolution_of, image
from relay_passes.rewrite import constant_value, dtype_of, is_call, is_constant, rewrite, shape_of
from schedules.convolution import bytes_after
from schedules.depthwise import is_depthwise
from schedules.quantizer import LARGEST
from schedules.targets.dot_products import PLAIN
from schedules.targets.kernel_target import KernelTarget

LAYERS = ("bibench.convolution", "bibench.matmul")
DENSE = {"kernel": [1, 1], "strides": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1}


class QuantizeFloatLayers:
    """ranges: layer -> largest magnitude of its input; table: what `FindBinary` filled, to be corrected."""

    def __init__(self, target: KernelTarget, ranges: Mapping[str, float], table: list[Layer]):
        self.target, self.ranges, self.table = target, ranges, table
        self.quantized: dict[tuple, relax.Expr] = {}

    def __call__(self, mod: tvm.IRModule) -> tvm.IRModule:
        for i, layer in enumerate(self.table):
            if not layer.binarized and layer.name not in self.ranges:
                self.table[i] = replace(layer, notes="It stays float32: there is no int8 kernel for it")
        return rewrite(mod, self._visit)

    def _visit(self, builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if not is_quantizable(value):
            return value
        x, w = value.args
        out = shape_of(w)[0]
        name = str(value.attrs["name"])
        geometry = DENSE
        if is_call(value, "bibench.convolution"):
            keys = ("kernel", "strides", "padding", "dilation")
            geometry = {k: [int(v) for v in value.attrs[k]] for k in keys}
            geometry["groups"] = int(value.attrs["groups"])
        conv = convolution_of(geometry, shape_of(x), out)
        weights, scales = quantize_weights(constant_value(w).reshape(out, *conv.kernel, -1))
        step = np.float32(self.ranges[name] / LARGEST or 1)
        depthwise = is_depthwise(conv, packed=False)
        dot = PLAIN if depthwise else self.target.dot
        key = (x, dot.zero_point, float(step))
        if key not in self.quantized:
            words = call(
                "bibench.pack",
                x,
                channels=conv.channels,
                groups=1,
                word=8,
                planar=0,
                halo=[0] * 4,
                scale=float(step),
                zero_point=dot.zero_point,
            )
            self.quantized[key] = builder.emit(words)
        sums = call(
            "bibench.int8_convolution",
            self.quantized[key],
            relax.const(weights),
            name=name,
            op=str(value.attrs.get("op", "linear")),
            in_shape=list(image(shape_of(x))),
            out_shape=list(shape_of(var)),
            channels=conv.channels,
            word=8,
            halo=[0] * 4,
            bytes_after=bytes_after(conv, dot.word),
            scale=float(step),
            zero_point=dot.zero_point,
            **geometry,
        )
        position = next(i for i, layer in enumerate(self.table) if layer.name == name)
        self.table[position] = replace(self.table[position], dtype="int8", weight_bytes=weights.size)
        floats = builder.emit(relax.op.astype(builder.emit(sums), "float32"))
        return relax.op.multiply(floats, relax.const(step * scales))


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
