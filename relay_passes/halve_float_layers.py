"""Compute layers that stay float in float16, where the processor has arithmetic for it and it pays.

The weights and a copy of the activations are rounded to float16, multiplied and added up in it, at most
`IN_HALF` products before float32 takes the sum; what goes in and comes out stays float32. Layers by
Winograd's method stay float32: it executes as few instructions or fewer, and its transformed numbers do not
bear more rounding. So do depthwise layers, and those whose weights are stored in bits.

Requires: that `find_binary` has run; a target with a `half_tile`.
Ensures: those layers are `bibench.convolution` or `bibench.matmul` with `half`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.layers import Layer
from relay_passes.ir.operators import Contraction, PackedContraction, attributes_of, call
from relay_passes.ir.rewrite import (
    bindings,
    constant_value,
    definitions,
    dtype_of,
    is_call,
    is_constant,
    read_vars,
    rewrite,
)
from relay_passes.ir.weights import TwoLevels
from relay_passes.kernels.stored_weights import in_bits
from relay_passes.kernels.transformed_weights import inside, of_input
from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.targets.kernel_target import KernelTarget

LAYERS = ("bibench.convolution", "bibench.matmul")
BITS = ("bibench.binary_convolution", "bibench.binary_product")


def halve_float_layers(
    mod: tvm.IRModule, target: KernelTarget, layers: Sequence[Layer]
) -> tuple[tvm.IRModule, tuple[Layer, ...]]:
    """The module and the layers, corrected. layers: what `find_binary` found."""
    weight_bytes: dict[str, int] = {}
    kept: dict[str, str] = {}

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if (
            not is_call(value, *LAYERS)
            or not is_constant(value.args[1])
            or dtype_of(value.args[0]) != "float32"
        ):
            return value
        layer = attributes_of(value, Contraction)
        weights = constant_value(value.args[1])
        if why := why_not(
            weights.reshape(layer.conv.out_channels, *layer.conv.kernel, -1), layer.conv, target
        ):
            kept[layer.name] = why
            return value
        weight_bytes[layer.name] = 2 * weights.size
        return call(value.op.name, *value.args, attributes=replace(layer, half=True))

    module = rewrite(mod, visit)

    def corrected(layer: Layer) -> Layer:
        if layer.name in weight_bytes:
            return replace(layer, dtype="float16", weight_bytes=weight_bytes[layer.name])
        if layer.binarized or layer.notes:
            return layer
        return replace(
            layer, notes=f"It stays float32: {kept.get(layer.name, 'there is no fp16 kernel for it')}"
        )

    return module, tuple(map(corrected, layers))


def reached_by_half(mod: tvm.IRModule) -> frozenset[str | int]:
    """The names of the binary layers whose operands layers in float16 decide on, and the positions of the
    outputs that these reach. Behind a binary layer are integers, which are exact."""
    reached: set[relax.Var] = set()
    found: set[str | int] = set()

    def is_reached(expr: relax.Expr) -> bool:
        return not reached.isdisjoint(read_vars(expr))

    for binding in bindings(mod):
        value = binding.value
        if is_call(value, *BITS):
            if is_reached(value):
                found.add(attributes_of(value, PackedContraction).name)
        elif is_reached(value) or (is_call(value, *LAYERS) and attributes_of(value, Contraction).half):
            reached.add(binding.var)
    defined, result = definitions(mod), mod["main"].body.body
    while isinstance(defined.get(result), (relax.Var, relax.Tuple)):
        result = defined[result]
    outputs = result.fields if isinstance(result, relax.Tuple) else [result]
    return frozenset(found | {i for i, output in enumerate(outputs) if is_reached(output)})


def why_not(weights: np.ndarray, conv: Convolution, target: KernelTarget) -> str:
    """The end of a sentence; empty for a layer that is faster in float16.

    weights: [O, KH, KW, C / groups]."""
    if depthwise.is_depthwise(conv, packed=False):
        return "there is no fp16 kernel for depthwise layers"
    if np.abs(weights).max(initial=0) > np.finfo(np.float16).max:
        return "its weights are beyond the range of float16"
    if isinstance(in_bits(weights, conv, target), TwoLevels):
        return "its weights are stored in bits"
    if of_input(weights, conv, target) or inside(weights, conv, target):
        return "Winograd's method in float32 takes no more instructions"
    return ""
