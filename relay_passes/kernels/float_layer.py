"""A convolution or dense layer of floats: depthwise, by Winograd for a network's input or inside it, or in
tiles, its weights as floats or in bits; or in tiles in float16."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import constant_value, shape_of
from relay_passes.ir.weights import TwoLevels
from relay_passes.kernels.kernel import Kernel, Site, Tunable
from relay_passes.kernels.planes_of_input import may_read_planes
from relay_passes.kernels.stored_weights import in_bits
from relay_passes.kernels.transformed_weights import inside, of_input
from schedules.kernels import depthwise
from schedules.kernels.convolution import float_convolution
from schedules.parts.bit_weights import FLOATS, store_in_bits
from schedules.parts.weights import lay_out
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.depthwise import DepthwiseTask
from schedules.records.kinds.tiled import TiledTask
from schedules.records.kinds.winograd import WinogradTask, WinogradTile
from schedules.targets.kernel_target import Tile


def lower_float_layer(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, Contraction)
    conv, target = layer.conv, site.target
    x, w = site.anchor.args
    weights = constant_value(w).reshape(conv.out_channels, *conv.kernel, -1)
    planes = site.planes if may_read_planes(conv) else None
    outputs = outputs_of(site.epilogue)
    writes_planes = any(output.form == "planar" for output in site.epilogue.outputs)
    stored = in_bits(weights, conv, target)
    name = "float_dense" if layer.op == "linear" else "float_convolution"
    arguments: list[relax.Expr]
    if layer.half and target.half_tile:
        taps, half = weights if planes is None else weights.transpose(0, 3, 1, 2), target.half_tile(conv)
        images = x if planes is None else planes
        function = float_convolution(
            conv, shape_of(images), half, target, site.epilogue, planar=planes is not None, half=True
        )
        halves = lay_out(taps.astype(np.float16), conv.groups, half)
        arguments = [images, relax.const(halves), *site.operands]
        name = name.replace("float", "float16")
    elif depthwise.is_depthwise(conv, packed=False):
        in_order_of_taps = relax.const(depthwise.in_tap_order(weights))

        def make_strip(strip: depthwise.Strip) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            kernel = depthwise.depthwise_convolution(
                conv, None, site.epilogue, ending="dot", in_shape=shape_of(x), strip=strip
            )
            return kernel, [x, in_order_of_taps, *site.operands]

        of_strips = Tunable(DepthwiseTask(conv=conv, outputs=outputs), make_strip)
        function, arguments = make_strip(site.choose(of_strips))
    elif not writes_planes and (
        of_input(weights, conv, target)
        if planes is not None
        else inside(weights, conv, target) and not isinstance(stored, TwoLevels)
    ):
        by_winograd = WinogradTask(conv=conv, planar=planes is not None, outputs=outputs)

        def make_winograd(tile: WinogradTile) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            kernel = by_winograd.kernel(tile, target, site.epilogue)
            laid_out = relax.const(by_winograd.laid_out(weights, tile))
            return kernel, [x if planes is None else planes, laid_out, *site.operands]

        function, arguments = make_winograd(site.choose(Tunable(by_winograd, make_winograd)))
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

        task = TiledTask(conv=conv, outputs=outputs, planar=planar, in_bits=coded)
        function, arguments = make(site.choose(Tunable(task, make)))
        name += "_of_bits" if coded else ""
    return Kernel(
        name=name,
        function=function,
        arguments=arguments,
        epilogue=site.epilogue,
        operands=site.operands,
    )
