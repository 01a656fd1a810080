"""A product of two binary activations: the second is laid out as weights are, at run time.

Of bits that stand for 0 and 1, the sums of signs are added first, see `BinaryProduct`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import BinaryProduct, attributes_of
from relay_passes.ir.rewrite import dtype_of, shape_of
from relay_passes.kernels.kernel import Integers, Kernel, Site
from schedules.kernels.convolution import binary_convolution
from schedules.parts.epilogue import SUM, Epilogue, Step, Value
from schedules.targets.kernel_target import Tile


def lower_binary_product(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, BinaryProduct)
    conv, packing = layer.conv, layer.packing
    left, right, *sums = site.anchor.args
    outer, inner, columns, depth_words = shape_of(right)
    default = site.target.binary_tile(conv)
    # All blocks alike, so that one permutation lays them out.
    tile = Tile(pixels=default.pixels, lanes=default.lanes, quantum=default.lanes)
    count = -(-columns // tile.lanes)
    emit, op = site.emit, relax.op
    filled = right
    if count * tile.lanes != columns:
        missing = np.zeros((outer, inner, count * tile.lanes - columns, depth_words), packing.dtype)
        filled = emit(op.concat([right, relax.const(missing)], 2))
    blocks = emit(op.reshape(filled, (outer, inner, count, tile.lanes, depth_words)))
    turned = emit(op.permute_dims(blocks, [0, 1, 2, 4, 3]))
    in_order = emit(op.reshape(turned, (outer * inner * count * tile.lanes * depth_words,)))

    def function(epilogue: Epilogue) -> tirx.PrimFunc:
        after = _after_sums(epilogue, sums, packing.channels)
        return binary_convolution(conv, packing, tile, site.target, after, ending="dot", weights_per_row=True)

    return Kernel(
        name="binary_product",
        function=function(site.epilogue),
        arguments=[left, in_order, *site.operands, *sums],
        epilogue=site.epilogue,
        operands=site.operands,
        integers=Integers(
            layer=layer,
            inputs=(left, right),
            weights=None,
            sums=function,
            sums_arguments=[left, in_order, *sums],
        ),
    )


def _after_sums(epilogue: Epilogue, sums: list[relax.Expr], depth: int) -> Epilogue:
    """The same program on the dot product plus these operands, which come after its own; with two of them
    (s + 1)(t + 1) = s t + t + s + 1 wants the depth besides."""
    first = len(epilogue.operands)
    added = [Value("operand", first + i) for i in range(len(sums))]
    if len(sums) == 2:
        added.append(Value("number", number=depth, dtype="int32"))
    total, steps = SUM, []
    for value in added:
        steps.append(Step("relax.add", (total, value)))
        total = Value("step", len(steps) - 1)

    def moved(value: Value) -> Value:
        if value == SUM:
            return total
        return replace(value, index=value.index + len(steps)) if value.kind == "step" else value

    own = [Step(s.op, tuple(map(moved, s.inputs)), s.attributes) for s in epilogue.steps]
    return Epilogue(
        (*epilogue.operands, *((shape_of(s), dtype_of(s)) for s in sums)),
        (*steps, *own),
        tuple(replace(o, value=moved(o.value)) for o in epilogue.outputs),
    )
