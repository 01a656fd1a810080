"""A product of two binary activations: the second is laid out as weights are, at run time.

Of bits that stand for 0 and 1, the sums of signs are added first, see `BinaryProduct`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tvm import relax, tirx

from relay_passes.ir.operators import BinaryProduct, attributes_of
from relay_passes.ir.rewrite import dtype_of, shape_of
from relay_passes.kernels.kernel import Integers, Kernel, LaidOut, Site, Tunable
from relay_passes.kernels.split_threshold import split_threshold
from schedules.kernels.convolution import binary_convolution, limit_dtype
from schedules.parts.borders import CLASS_DTYPE, Ending, limit_table
from schedules.parts.epilogue import SUM, Epilogue, Step, Value
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.product import ProductTask
from schedules.targets.kernel_target import Tile


def lower_binary_product(site: Site) -> Kernel:
    layer = attributes_of(site.anchor, BinaryProduct)
    conv, packing = layer.conv, layer.packing
    left, right, *sums = site.anchor.args
    epilogue, operands = site.epilogue, site.operands
    thresholds: np.ndarray | None = None
    split = None if sums else split_threshold(epilogue, operands)
    if split and not split[3].any():
        epilogue, operands, thresholds, _ = split

    def in_tiles(tile: Tile, epilogue: Epilogue, ending: Ending) -> tirx.PrimFunc:
        after = _after_sums(epilogue, sums, packing.channels)
        return binary_convolution(
            conv, packing, tile, site.target, after, ending=ending, weights_per_row=True
        )

    ending: Ending = "dot" if thresholds is None else "truth"

    def limits(tile: Tile) -> list[relax.Expr]:
        """As of "truth": each row and column is of the one class of those that have all products."""
        if thresholds is None:
            return []
        table = limit_table(np.full((1, 1, conv.out_channels), conv.products), thresholds, conv)
        classes = [np.zeros(extent, CLASS_DTYPE) for extent in (conv.out_height, conv.out_width)]
        return list(map(relax.const, (table.astype(limit_dtype(conv, packing, tile)), *classes)))

    def make(tile: Tile) -> tuple[tirx.PrimFunc, list[relax.Expr | LaidOut]]:
        laid_out = LaidOut(right, lambda words: rows_in_blocks(words, tile.lanes))
        return in_tiles(tile, epilogue, ending), [left, laid_out, *operands, *sums, *limits(tile)]

    task = ProductTask(conv=conv, packing=packing, outputs=outputs_of(epilogue))
    tile = site.choose(Tunable(task, make))
    in_order = _in_blocks(right, tile.lanes, site.emit)

    return Kernel(
        name="binary_product",
        function=in_tiles(tile, epilogue, ending),
        arguments=[left, in_order, *operands, *sums, *limits(tile)],
        epilogue=epilogue,
        operands=operands,
        integers=Integers(
            layer=layer,
            inputs=(left, right),
            weights=None,
            thresholds=thresholds,
            sums=lambda plain: in_tiles(tile, plain, "dot"),
            sums_arguments=[left, in_order, *sums],
        ),
    )


def rows_in_blocks(words: np.ndarray, lanes: int) -> np.ndarray:
    """[.., columns, words of one] -> flat, as the kernel reads them: blocks of so many columns, missing ones
    0, and in a block the first word of each column before the second."""
    outer, inner, columns, depth_words = words.shape
    count = -(-columns // lanes)
    filled = np.zeros((outer, inner, count * lanes, depth_words), words.dtype)
    filled[:, :, :columns] = words
    return filled.reshape(outer, inner, count, lanes, depth_words).swapaxes(3, 4).ravel()


def _in_blocks(words: relax.Expr, lanes: int, emit: Callable[[relax.Expr], relax.Var]) -> relax.Var:
    """`rows_in_blocks` in the network."""
    outer, inner, columns, depth_words = shape_of(words)
    op, count = relax.op, -(-columns // lanes)
    filled = words
    if count * lanes != columns:
        missing = np.zeros((outer, inner, count * lanes - columns, depth_words), dtype_of(words))
        filled = emit(op.concat([words, relax.const(missing)], 2))
    blocks = emit(op.reshape(filled, (outer, inner, count, lanes, depth_words)))
    turned = emit(op.permute_dims(blocks, [0, 1, 2, 4, 3]))
    return emit(op.reshape(turned, (outer * inner * count * lanes * depth_words,)))


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
