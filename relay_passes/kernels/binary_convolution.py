"""A convolution of bits: its thresholds, its border tables, its weights in bits."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import BinaryConvolution, attributes_of
from relay_passes.ir.rewrite import constant_value
from relay_passes.kernels.kernel import Integers, Kernel, Site, Tunable
from relay_passes.kernels.split_threshold import split_threshold
from schedules.kernels import depthwise
from schedules.kernels.convolution import binary_convolution, lay_out_bits, limit_dtype
from schedules.parts.borders import Ending, border_tables, count_dtype, halves, limit_table, limits_inside
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import pack_weights
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.depthwise import DepthwiseTask
from schedules.records.kinds.tiled import TiledTask
from schedules.targets.kernel_target import Tile

IN_BYTES_FROM = 2048
"""Products of an output, from which on a table of bytes costs 0.3 % of a layer at most."""


def lower_binary_convolution(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, BinaryConvolution)
    conv, packing = layer.conv, layer.packing
    words, signs = site.anchor.args[0], constant_value(site.anchor.args[1])
    epilogue, operands = site.epilogue, site.operands
    thresholds = turned = None
    if split := split_threshold(epilogue, operands):
        epilogue, operands, thresholds, falls = split
        # not (d >= T)  <=>  -d >= 1 - T, and -d is the sum over the opposite weights.
        turned = np.broadcast_to(falls, conv.out_channels)
        signs = np.where(turned[:, None, None, None], -signs, signs)
        thresholds = np.where(turned, 1 - thresholds, thresholds)
    bare: Ending = "bordered dot" if layer.zero_one or any(conv.padding) else "dot"
    base, *classes = border_tables(conv, signs > 0, layer.zero_one)
    packed = pack_weights(signs > 0, packing.word)

    def tables(table: np.ndarray) -> list[relax.Expr]:
        return [relax.const(t) for t in (table, *classes)]

    is_depthwise = depthwise.is_depthwise(conv, packed=True)
    in_bytes = bare == "bordered dot" and not is_depthwise and conv.products >= IN_BYTES_FROM
    half = halves(base, conv) if in_bytes else None
    bordered = tables(base if half is None else half) if bare == "bordered dot" else []
    ending: Ending = bare if thresholds is None else "truth"
    inside = None if half is None or thresholds is None else limits_inside(thresholds, conv)

    def after(limits: str) -> list[relax.Expr]:
        """limits: the dtype that the kernel has of them."""
        if thresholds is None:
            return bordered
        if half is not None and inside is not None:
            return [*tables(half), relax.const(inside)]
        return tables(limit_table(base, thresholds, conv).astype(limits))

    if is_depthwise:
        name, weights = "binary_depthwise_convolution", relax.const(depthwise.in_tap_order(packed))
        ends = after(count_dtype(conv))

        def in_strips(strip: depthwise.Strip, epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
            return depthwise.depthwise_convolution(conv, packing, epilogue, ending=ending, strip=strip)

        def make_strips(strip: depthwise.Strip) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            return in_strips(strip, epilogue, ending), [words, weights, *operands, *ends]

        strips = DepthwiseTask(conv=conv, packing=packing, ending=ending, outputs=outputs_of(epilogue))
        strip = site.choose(Tunable(strips, make_strips))

        def function(epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
            return in_strips(strip, epilogue, ending)
    else:

        def tiled(tile: Tile, epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
            in_bytes = half is not None if ending == bare else inside is not None
            return binary_convolution(
                conv, packing, tile, site.target, epilogue, ending=ending, border_in_bytes=in_bytes
            )

        def weights_for(tile: Tile) -> relax.Expr:
            return relax.const(lay_out_bits(packed, conv.groups, tile))

        def make(tile: Tile) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
            ends = after(limit_dtype(conv, packing, tile))
            return tiled(tile, epilogue, ending), [words, weights_for(tile), *operands, *ends]

        task = TiledTask(conv=conv, packing=packing, ending=ending, outputs=outputs_of(epilogue))
        tile = site.choose(Tunable(task, make))
        name, weights = "binary_convolution", weights_for(tile)
        ends = after(limit_dtype(conv, packing, tile))

        def function(epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
            return tiled(tile, epilogue, ending)

    return Kernel(
        name=name,
        function=function(epilogue, ending),
        arguments=[words, weights, *operands, *ends],
        epilogue=epilogue,
        operands=operands,
        integers=Integers(
            layer=layer,
            inputs=(words,),
            weights=signs,
            thresholds=thresholds,
            turned=turned,
            sums=lambda plain: function(plain, bare),
            sums_arguments=[words, weights, *bordered],
        ),
    )
