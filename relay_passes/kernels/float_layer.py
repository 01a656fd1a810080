"""A convolution or dense layer of floats: depthwise, by Winograd for a network's input or inside it, or in
tiles, its weights as floats or in bits; or in tiles in float16."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import constant_value, shape_of
from relay_passes.ir.weights import TwoLevels
from relay_passes.kernels.kernel import Kernel, Site, Tunable
from relay_passes.kernels.stored_weights import in_bits, may_read_planes
from schedules.kernels import depthwise, winograd, winograd_inside
from schedules.kernels.convolution import float_convolution
from schedules.parts.bit_weights import FLOATS, store_in_bits
from schedules.parts.weights import lay_out
from schedules.records.kernel_task import KernelTask, outputs_of
from schedules.targets.kernel_target import Tile


def lower_float_layer(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, Contraction)
    conv, target = layer.conv, site.target
    x, w = site.anchor.args
    weights = constant_value(w).reshape(conv.out_channels, *conv.kernel, -1)
    planes = site.planes if may_read_planes(conv) else None
    fast = target.winograd_tile(conv) if winograd.saves_products(conv) else None
    inside = target.winograd_tile(conv) if winograd_inside.is_faster(conv, target) else None
    writes_planes = any(output.planar for output in site.epilogue.outputs)
    stored = in_bits(weights, conv, target)
    name = "float_dense" if layer.op == "linear" else "float_convolution"
    if layer.half and target.half_tile:
        source, taps = (x, weights) if planes is None else (planes, weights.transpose(0, 3, 1, 2))
        tile = target.half_tile(conv)
        function = float_convolution(
            conv, shape_of(source), tile, target, site.epilogue, planar=planes is not None, half=True
        )
        arguments = [source, relax.const(lay_out(taps.astype(np.float16), conv.groups, tile)), *site.operands]
        name = name.replace("float", "float16")
    elif depthwise.is_depthwise(conv, packed=False):
        function = depthwise.depthwise_convolution(
            conv, None, site.epilogue, ending="dot", in_shape=shape_of(x)
        )
        arguments = [x, relax.const(depthwise.in_tap_order(weights)), *site.operands]
    elif planes is not None and fast is not None and not writes_planes:
        function = winograd.winograd_convolution(conv, fast, target, site.epilogue)
        transformed = winograd.transform_weights(weights.transpose(0, 3, 1, 2), conv)
        arguments = [planes, relax.const(lay_out(transformed, 1, fast)), *site.operands]
    elif inside is not None and planes is None and not writes_planes and not isinstance(stored, TwoLevels):
        function = winograd_inside.winograd_inside(conv, inside, target, site.epilogue)
        transformed = winograd_inside.transform_weights(weights)
        arguments = [x, relax.const(lay_out(transformed, 1, inside)), *site.operands]
    else:
        planar = planes is not None
        source = planes if planar else x
        coded = isinstance(stored, TwoLevels)

        def in_order(taps: np.ndarray) -> np.ndarray:
            return taps.transpose(0, 3, 1, 2) if planar else taps

        def laid_out(tile: Tile) -> list[np.ndarray]:
            if isinstance(stored, TwoLevels):
                higher = in_order(stored.higher)
                return [*store_in_bits(higher, stored.low, stored.high, FLOATS, conv.groups, tile)]
            return [lay_out(in_order(weights), conv.groups, tile)]

        def make(tile: Tile) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            kernel = float_convolution(
                conv, shape_of(source), tile, target, site.epilogue, planar=planar, in_bits=coded
            )
            return kernel, [source, *map(relax.const, laid_out(tile)), *site.operands]

        task = KernelTask(conv=conv, outputs=outputs_of(site.epilogue), planar=planar)
        function, arguments = make(site.tile(Tunable(task, target.float_tile(conv), make)))
        name += "_of_bits" if coded else ""
    return Kernel(
        name=name,
        function=function,
        arguments=arguments,
        epilogue=site.epilogue,
        operands=site.operands,
    )
