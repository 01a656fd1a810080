"""A convolution of bytes, its weights as bytes or in bits."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import Int8Convolution, attributes_of
from relay_passes.ir.rewrite import constant_value
from relay_passes.ir.weights import TwoLevels
from relay_passes.kernels.kernel import Integers, Kernel, Site
from relay_passes.kernels.stored_weights import in_bits
from schedules.kernels import depthwise
from schedules.kernels.convolution import int8_code, int8_convolution
from schedules.parts.bit_weights import store_in_bits
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import lay_out, offsets, pack_int8


def lower_int8_convolution(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, Int8Convolution)
    conv, packing = layer.conv, layer.packing
    words, weights = site.anchor.args[0], constant_value(site.anchor.args[1])
    if depthwise.is_depthwise(conv, packed=False):
        name, stored = "int8_depthwise_convolution", [depthwise.in_tap_order(weights).view(np.uint8)]

        def function(epilogue: Epilogue) -> tirx.PrimFunc:
            return depthwise.depthwise_convolution(conv, packing, epilogue, ending="dot")
    else:
        dot = site.target.dot
        tile = dot.tile(conv)
        levels = in_bits(weights, conv, site.target)
        coded = isinstance(levels, TwoLevels)
        if isinstance(levels, TwoLevels):
            code = int8_code(conv, dot.word)
            stored = [*store_in_bits(levels.higher, levels.low, levels.high, code, conv.groups, tile)]
        else:
            stored = [lay_out(pack_int8(weights, conv, dot.word), conv.groups, tile)]
        name = "int8_convolution_of_bits" if coded else "int8_convolution"

        def function(epilogue: Epilogue) -> tirx.PrimFunc:
            return int8_convolution(conv, packing, tile, site.target, epilogue, in_bits=coded)

    zero_point = packing.quantizer.zero_point if packing.quantizer else 0
    before = [words, *map(relax.const, stored)]
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
