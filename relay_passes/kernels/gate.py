"""A chain of layers of one pixel as one kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import constant_value, shape_of
from schedules.kernels.gate import PixelLayer, gate_kernel
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import lay_out
from schedules.targets.kernel_target import KernelTarget

Part = tuple[relax.Call, Epilogue, list[relax.Expr]]
"""A layer, what follows it, and the tensors that this reads."""


def lower_gate(
    source: relax.Expr, parts: Sequence[Part], target: KernelTarget
) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
    """The kernel and its arguments."""
    layers, arguments = [], [source]
    for call, epilogue, operands in parts:
        conv = attributes_of(call, Contraction).conv
        tile = target.float_tile(conv)
        layers.append(PixelLayer(conv=conv, tile=tile, epilogue=epilogue))
        weights = constant_value(call.args[1]).reshape(conv.out_channels, 1, 1, conv.channels)
        arguments += [relax.const(lay_out(np.ascontiguousarray(weights), 1, tile)), *operands]
    return gate_kernel(shape_of(source), layers, target), arguments
