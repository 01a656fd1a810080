"""A convolution of bytes."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import Int8Convolution, attributes_of
from relay_passes.ir.rewrite import constant_value
from relay_passes.kernels.kernel import Integers, Kernel, Site
from schedules.kernels import depthwise
from schedules.kernels.convolution import int8_convolution
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import lay_out, offsets, pack_int8


def lower_int8_convolution(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, Int8Convolution)
    conv, packing = layer.conv, layer.packing
    words, weights = site.anchor.args[0], constant_value(site.anchor.args[1])
    if depthwise.is_depthwise(conv, packed=False):
        name, in_order = "int8_depthwise_convolution", depthwise.in_tap_order(weights).view(np.uint8)

        def function(epilogue: Epilogue) -> tirx.PrimFunc:
            return depthwise.depthwise_convolution(conv, packing, epilogue, ending="dot")
    else:
        dot = site.target.dot
        tile = dot.tile(conv)
        name, in_order = "int8_convolution", lay_out(pack_int8(weights, conv, dot.word), conv.groups, tile)

        def function(epilogue: Epilogue) -> tirx.PrimFunc:
            return int8_convolution(conv, packing, tile, site.target, epilogue)

    zero_point = packing.quantizer.zero_point if packing.quantizer else 0
    before = [words, relax.const(in_order)]
    after = [relax.const(offsets(weights, zero_point))] if zero_point else []
    return Kernel(
        name=name,
        function=function(site.epilogue),
        arguments=[*before, *site.operands, *after],
        epilogue=site.epilogue,
        operands=site.operands,
        integers=Integers(
            layer=layer,
            inputs=(words,),
            weights=weights,
            sums=function,
            sums_arguments=[*before, *after],
        ),
    )
