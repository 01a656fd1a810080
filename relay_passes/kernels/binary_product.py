"""A product of two binary activations: the second is laid out as weights are, at run time."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import BinaryProduct, attributes_of
from relay_passes.ir.rewrite import shape_of
from relay_passes.kernels.kernel import Integers, Kernel, Site
from schedules.kernels.convolution import binary_convolution
from schedules.parts.epilogue import Epilogue
from schedules.targets.kernel_target import Tile


def lower_binary_product(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, BinaryProduct)
    conv, packing = layer.conv, layer.packing
    left, right = site.anchor.args
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
        return binary_convolution(
            conv, packing, tile, site.target, epilogue, ending="dot", weights_per_row=True
        )

    return Kernel(
        name="binary_product",
        function=function(site.epilogue),
        arguments=[left, in_order, *site.operands],
        epilogue=site.epilogue,
        operands=site.operands,
        integers=Integers(
            layer=layer,
            inputs=(left, right),
            weights=None,
            sums=function,
            sums_arguments=[left, in_order],
        ),
    )
