"""Layers of one pixel, each of what the one before gave, in one kernel: a gate of squeeze and excitation.

Such layers are small, and most of what each took by itself was its call. The average of an image, which feeds
a gate, is computed here as well.

The plain reference is numpy's mean, then `convolution_reference` and `Epilogue.evaluate` for each layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.emit import flat, in_pieces, load, spread, store, vector, whole_vectors
from schedules.parts.epilogue import Epilogue
from schedules.parts.sums import Runs, across
from schedules.parts.tiling import Place, Tiling
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import KernelTarget, Tile

MOST_PRODUCTS = 1 << 17
"""Of a layer: more of them take longer than a call, and threads may share them out."""


@dataclass(frozen=True, kw_only=True)
class PixelLayer:
    """conv: a float layer that `is_of_one_pixel`; epilogue: has one output, but for the last layer."""

    conv: Convolution
    tile: Tile
    epilogue: Epilogue


def is_of_one_pixel(conv: Convolution) -> bool:
    """Whether a layer is a small product of a matrix and a vector."""
    alone = conv.batch == conv.height == conv.width == conv.groups == 1 and conv.kernel == (1, 1)
    return alone and not any(conv.padding) and conv.macs <= MOST_PRODUCTS


def gate_kernel(shape: tuple[int, ...], layers: Sequence[PixelLayer], target: KernelTarget) -> tirx.PrimFunc:
    """Parameters of the kernel: an image, float32 of this shape, whose pixels are averaged where it has
    several; for each layer its weights, as `lay_out` gives them, and its epilogue's operands; and the outputs
    of the last layer. shape: of one image, channels last."""
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        image = T.arg("image", T.buffer(shape, "float32"))
        parameters: list[tuple[tirx.Buffer, list[tirx.Buffer]]] = []
        for i, layer in enumerate(layers):
            size = _tiling(layer).weights
            weights = T.arg(f"weights{i}", T.buffer((size,), "float32"))
            parameters.append((weights, operand_arguments(layer.epilogue, f"operand{i}_")))
        written = output_arguments(layers[-1].epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            source, pixels = flat(image), math.prod(shape[:-1])
            if pixels > 1:
                source = _average(source, pixels, shape[-1], target)
            for layer, (weights, operands) in zip(layers, parameters, strict=True):
                last = layer is layers[-1]
                outputs = (
                    written if last else [T.alloc_buffer(o.shape, o.dtype) for o in layer.epilogue.outputs]
                )
                _compute(layer, source, weights, operands, outputs, target)
                source = source if last else flat(outputs[0])
    return builder.get()


def _tiling(layer: PixelLayer) -> Tiling:
    return Tiling(conv=layer.conv, tile=layer.tile, products=layer.conv.channels, weights_per_row=False)


def _compute(
    layer: PixelLayer,
    source: tirx.Buffer,
    weights: tirx.Buffer,
    operands: list[tirx.Buffer],
    outputs: list[tirx.Buffer],
    target: KernelTarget,
) -> None:
    writer = Writer(layer.epilogue, outputs, operands, (1, 1, 1))
    writer.clear_halos()

    def compute(place: Place) -> None:
        width = place.block.width
        sums = T.alloc_buffer((width,), "float32", scope="local")
        runs = Runs(
            activations=source,
            weights=weights,
            count=1,
            words=layer.conv.channels,
            starts=lambda i: [0],
            offset=place.weights,
        )
        across(runs, sums, 1, width, layer.tile, layer.tile.together or target.together)

        def total(lane: Any, channel: Any, lanes: int) -> Any:
            return vector(sums, [lane], lanes)

        writer.write(0, 0, 0, place.channel, place.block.valid, total)

    _tiling(layer).by_rows(compute)


def _average(numbers: tirx.Buffer, pixels: int, channels: int, target: KernelTarget) -> tirx.Buffer:
    """Of [pixels, channels] over the pixels. Half of the registers hold sums, of several pixels where an
    image has few channels, so that none waits for the one before."""
    means, most = T.alloc_buffer((channels,), "float32"), target.registers // 2

    def block(first: Any, count: int) -> None:
        vectors = whole_vectors(count, target.floats)
        parts = max(1, min(most // len(vectors), pixels))
        sums = T.alloc_buffer((parts * count,), "float32", scope="local")

        def add(pixel: Any, part: int) -> None:
            for lane, lanes in vectors:
                seen = load(numbers, pixel * channels + first + lane, lanes)
                store(sums, part * count + lane, lanes, load(sums, part * count + lane, lanes) + seen)

        def add_some(first_pixel: Any, count: int) -> None:
            for part in range(count):
                add(first_pixel + part, part)

        for part in range(parts):
            for lane, lanes in vectors:
                store(sums, part * count + lane, lanes, spread(tirx.const(0, "float32"), lanes))
        in_pieces(pixels, parts, add_some)
        for lane, lanes in vectors:
            total = load(sums, lane, lanes)
            for part in range(1, parts):
                total = total + load(sums, part * count + lane, lanes)
            store(means, first + lane, lanes, total / spread(tirx.const(pixels, "float32"), lanes))

    in_pieces(channels, most * target.floats, block)
    return means
