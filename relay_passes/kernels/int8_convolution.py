"""A convolution of bytes, its weights as bytes or in bits."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import Int8Convolution, attributes_of
from relay_passes.ir.rewrite import constant_value
from relay_passes.ir.weights import TwoLevels
from relay_passes.kernels.kernel import Integers, Kernel, Site, Tunable
from relay_passes.kernels.stored_weights import in_bits
from schedules.kernels import depthwise
from schedules.kernels.convolution import int8_code, int8_convolution
from schedules.parts.bit_weights import store_in_bits
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import lay_out, offsets, pack_int8
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.depthwise import DepthwiseTask
from schedules.records.kinds.int8 import Int8Task
from schedules.targets.kernel_target import Tile


def lower_int8_convolution(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, Int8Convolution)
    conv, packing = layer.conv, layer.packing
    words, weights = site.anchor.args[0], constant_value(site.anchor.args[1])
    zero_point = packing.quantizer.zero_point if packing.quantizer else 0
    after = [relax.const(offsets(weights, zero_point))] if zero_point else []
    outputs = outputs_of(site.epilogue)
    if depthwise.is_depthwise(conv, packed=False):
        name, stored = "int8_depthwise_convolution", [depthwise.in_tap_order(weights).view(np.uint8)]

        def in_strips(strip: depthwise.Strip, epilogue: Epilogue) -> tirx.PrimFunc:
            return depthwise.depthwise_convolution(conv, packing, epilogue, ending="dot", strip=strip)

        def make_strips(strip: depthwise.Strip) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            arguments = [words, *map(relax.const, stored), *site.operands, *after]
            return in_strips(strip, site.epilogue), arguments

        strip = site.choose(Tunable(DepthwiseTask(conv=conv, packing=packing, outputs=outputs), make_strips))

        def function(epilogue: Epilogue) -> tirx.PrimFunc:
            return in_strips(strip, epilogue)
    else:
        word = site.target.dot.word
        levels = in_bits(weights, conv, site.target)
        coded = isinstance(levels, TwoLevels)

        def laid_out(tile: Tile) -> list[np.ndarray]:
            if isinstance(levels, TwoLevels):
                code = int8_code(conv, word)
                return [*store_in_bits(levels.higher, levels.low, levels.high, code, conv.groups, tile)]
            return [lay_out(pack_int8(weights, conv, word), conv.groups, tile)]

        def in_tiles(tile: Tile, epilogue: Epilogue) -> tirx.PrimFunc:
            return int8_convolution(conv, packing, tile, site.target, epilogue, in_bits=coded)

        def make_tiles(tile: Tile) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            arguments = [words, *map(relax.const, laid_out(tile)), *site.operands, *after]
            return in_tiles(tile, site.epilogue), arguments

        task = Int8Task(conv=conv, packing=packing, word=word, in_bits=coded, outputs=outputs)
        tile = site.choose(Tunable(task, make_tiles))
        name, stored = "int8_convolution_of_bits" if coded else "int8_convolution", laid_out(tile)

        def function(epilogue: Epilogue) -> tirx.PrimFunc:
            return in_tiles(tile, epilogue)

    before = [words, *map(relax.const, stored)]
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
