"""A convolution of bits: its thresholds, its border tables, its weights in bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import BinaryConvolution, attributes_of
from relay_passes.ir.rewrite import constant_value
from relay_passes.kernels.kernel import Integers, Kernel, Site, Tunable
from relay_passes.kernels.split_threshold import split_threshold
from schedules.geometry import Convolution
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


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """What a kernel reads of the borders, as schedules/parts/borders.py has it."""

    conv: Convolution
    base: np.ndarray
    classes: list[np.ndarray]  # of rows, of columns
    thresholds: np.ndarray | None  # of a layer of truths
    half: np.ndarray | None  # the base in bytes, where the kernel has it so
    inside: np.ndarray | None  # and the limits beside it

    def in_bytes(self, ending: Ending) -> bool:
        return (self.inside if ending == "truth" else self.half) is not None

    def of_dots(self) -> list[relax.Expr]:
        """For a "bordered dot"."""
        return self._with_classes(self.base if self.half is None else self.half)

    def of_truths(self, dtype: str) -> list[relax.Expr]:
        """For a "truth". dtype: of limits that are not in bytes."""
        assert self.thresholds is not None
        if self.half is not None and self.inside is not None:
            return [*self._with_classes(self.half), relax.const(self.inside)]
        return self._with_classes(limit_table(self.base, self.thresholds, self.conv).astype(dtype))

    def _with_classes(self, table: np.ndarray) -> list[relax.Expr]:
        return [relax.const(t) for t in (table, *self.classes)]


def _tables(
    conv: Convolution, weights: np.ndarray, zero_one: bool, thresholds: np.ndarray | None, may_be_bytes: bool
) -> _Tables:
    """weights: as of `border_tables`."""
    base, *classes = border_tables(conv, weights, zero_one)
    half = halves(base, conv) if may_be_bytes and conv.products >= IN_BYTES_FROM else None
    inside = None if half is None or thresholds is None else limits_inside(thresholds, conv)
    return _Tables(conv=conv, base=base, classes=classes, thresholds=thresholds, half=half, inside=inside)


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
    ending: Ending = bare if thresholds is None else "truth"
    is_depthwise = depthwise.is_depthwise(conv, packed=True)
    may_be_bytes = bare == "bordered dot" and not is_depthwise
    tables = _tables(conv, signs > 0, layer.zero_one, thresholds, may_be_bytes)
    bordered = tables.of_dots() if bare == "bordered dot" else []
    packed = pack_weights(signs > 0, packing.word)

    def after(limits: str) -> list[relax.Expr]:
        """limits: the dtype that the kernel has of them."""
        return bordered if thresholds is None else tables.of_truths(limits)

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
            in_bytes = tables.in_bytes(ending)
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
