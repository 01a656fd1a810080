"""Convolution, binary, int8 and float, channels last, in register tiles; a dense layer is its 1x1 case.

A tile is `pixels` neighbours of one output row times `lanes` output channels. Its sums live in vector
registers while the kernel walks over the taps and input channels (sums.py): a word of an activation is 8, 16
or 32 channels of one pixel, and

    sum[pixel, channel] += popcount(activation[pixel] ^ weight[channel])

and, for float layers, `sum += activation * weight`; for int8 layers a word is one to four channels, and the
processor's `DotProduct` multiplies and adds them up. Weights are laid out at compile time in the order in
which the kernel reads them (`lay_out`), so the inner loop has no strides to compute.

A border of zeros is exact: see borders.py.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.bits import Packing
from schedules.parts.borders import Borders, Ending
from schedules.parts.emit import each, flat, load, spread, store, vector
from schedules.parts.epilogue import Epilogue
from schedules.parts.planes import Planes, band_of_rows
from schedules.parts.sums import Runs, across, along, dotted
from schedules.parts.weights import Block, blocks_of_group
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import KernelTarget, Tile


def convolution_reference(activations: np.ndarray, weights: np.ndarray, conv: Convolution) -> np.ndarray:
    """float32 [N, OH, OW, O], float64 where integers need it to be exact: sums of products, padded with 0.

    activations: [N, H, W, C]; weights: [O, KH, KW, C / groups].
    """
    top, left, bottom, right = conv.padding
    most = (
        conv.products
        * float(np.abs(activations, dtype=np.float32).max())
        * float(np.abs(weights, dtype=np.float32).max())
    )
    exact = np.float32 if most < 2**24 else np.float64
    padded = np.pad(activations.astype(exact), ((0, 0), (top, bottom), (left, right), (0, 0)))
    group_in, group_out = conv.channels // conv.groups, conv.out_channels // conv.groups
    out = np.zeros(conv.out_shape, exact)
    for i in range(conv.kernel[0]):
        for j in range(conv.kernel[1]):
            y, x = i * conv.dilation[0], j * conv.dilation[1]
            seen = padded[
                :,
                y : y + (conv.out_height - 1) * conv.strides[0] + 1 : conv.strides[0],
                x : x + (conv.out_width - 1) * conv.strides[1] + 1 : conv.strides[1],
            ]
            for g in range(conv.groups):
                o = slice(g * group_out, (g + 1) * group_out)
                tap = weights[o, i, j].astype(exact)
                out[..., o] += seen[..., g * group_in : (g + 1) * group_in] @ tap.T
    return out


def binary_convolution_reference(
    activations: np.ndarray, weights: np.ndarray, conv: Convolution
) -> np.ndarray:
    """The same of small integers, int32; exact."""
    return convolution_reference(activations, weights, conv).astype(np.int32)


def rows_together(conv: Convolution, pixels: int) -> int:
    """2 where tiles of two half rows fit an image that whole tiles of one row do not, else 1."""
    halves = pixels % 2 == 0 and conv.out_height % 2 == 0 and conv.out_width % (pixels // 2) == 0
    return 2 if halves and conv.out_width % pixels else 1


def split_row(width: int, most: int) -> tuple[int, int, int]:
    """A row in the fewest tiles of at most `most` pixels, nearly alike, as a narrow rest wastes registers:
    `larger` of them of `pixels`, then `smaller` of one less. Returns (larger, pixels, smaller)."""
    count = -(-width // most)
    pixels = -(-width // count)
    larger = width - count * (pixels - 1)
    return larger, pixels, count - larger


def binary_convolution(
    conv: Convolution,
    packing: Packing,
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    ending: Ending,
    weights_per_row: bool = False,
) -> tirx.PrimFunc:
    """Parameters of the kernel: packed activations, weights as `lay_out` gives them, the epilogue's operands,
    the tables that the ending needs, and the outputs.

    packing: how the activations are packed; its halo covers the convolution's padding.
    weights_per_row: each row of each image has weights of its own, one set after another (a product of two
    activations, whose rows are its leading extents).
    """
    shape = packing.shape(conv.batch, conv.height, conv.width)
    return _tiled(conv, packing, shape, tile, target, epilogue, ending, weights_per_row=weights_per_row)


def int8_convolution(
    conv: Convolution, packing: Packing, tile: Tile, target: KernelTarget, epilogue: Epilogue
) -> tirx.PrimFunc:
    """Parameters of the kernel: packed activations, weights as `lay_out` gives them after `pack_int8`, the
    epilogue's operands, with a zero point the `offsets` of the sums, and the outputs.

    The epilogue's sum is int32. packing: its zero point is that of `target.dot`, and its halo leaves
    `bytes_after` behind what is read: whole words of bytes are read, also at the end of a run.
    """
    spare = (packing.halo[2] - conv.padding[2]) * (conv.width + packing.halo[1] + packing.halo[3])
    if spare * conv.channels < bytes_after(conv, target.dot.word):
        raise ValueError(f"the halo {packing.halo} leaves less behind the last run than is read of it")
    shape = packing.shape(conv.batch, conv.height, conv.width)
    return _tiled(conv, packing, shape, tile, target, epilogue, "dot")


def bytes_after(conv: Convolution, word: int) -> int:
    """How many bytes an int8 kernel may read behind the padded activations, which mean nothing to it."""
    return -(conv.taps_in_a_run * conv.channels // conv.groups) % (word // 8)


def float_convolution(
    conv: Convolution,
    in_shape: tuple[int, ...],
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    planar: bool = False,
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 (`in_shape`: [N, H, W, C], or the last of these extents
    where the first are 1), weights as `lay_out` gives them, the epilogue's operands, and the outputs.

    planar: the activations are [N, C, H, W], and the weights were laid out from [O, C, KH, KW]; for the few
    channels of a network's input, and without groups or dilation.
    """
    return _tiled(conv, None, in_shape, tile, target, epilogue, "dot", planar=planar)


def _tiled(
    conv: Convolution,
    packing: Packing | None,
    declared: tuple[int, ...],
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    ending: Ending,
    *,
    weights_per_row: bool = False,
    planar: bool = False,
) -> tirx.PrimFunc:
    planes = conv.channels if planar else 1
    dot = target.dot if packing and packing.quantizer else None
    if packing and not dot:
        word = tile.word or packing.word
        if packing.words_per_group * packing.word % word:
            raise ValueError(
                f"Groups of {packing.words_per_group} words of {packing.word} bits, in parts of {word}."
            )
        words = packing.words_per_group * packing.word // word
        pitch = words * packing.groups
    else:
        word = dot.word if dot else 32
        words, pitch = conv.channels // conv.groups // planes, conv.channels // planes
    top, left, bottom, right = packing.halo if packing else conv.padding
    height, row_pitch = conv.height + top + bottom, (conv.width + left + right) * pitch
    if packing and any(h < p for h, p in zip(packing.halo, conv.padding, strict=True)):
        raise ValueError(
            f"the halo {packing.halo} of the activations does not cover the padding {conv.padding}"
        )
    in_dtype = packing.dtype if packing else "float32"
    out_group = conv.out_channels // conv.groups
    blocks = blocks_of_group(out_group, tile.lanes, tile.quantum)
    kh_extent, kw_extent = conv.kernel
    contiguous = conv.taps_in_a_run == kw_extent
    run_count = planes * kh_extent * (kw_extent // conv.taps_in_a_run)
    run_words = conv.taps_in_a_run * words
    if dot:
        run_words = -(-run_words // (dot.word // 8))
    products = run_count * run_words  # words per lane of one block
    lanes_per_group = sum(b.width for b in blocks)
    full = [b for b in blocks if b.valid == tile.lanes]
    tail = [b for b in blocks if b.valid != tile.lanes]

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("activations", T.buffer(declared, in_dtype))
        sets = conv.batch * conv.height if weights_per_row else 1
        set_size = conv.groups * lanes_per_group * products
        weights = T.arg("weights", T.buffer((sets * set_size,), f"uint{word}" if packing else in_dtype))
        operands = operand_arguments(epilogue)
        borders = Borders(conv, ending)
        if dot and dot.zero_point:
            offsets = T.arg("offsets", T.buffer((conv.out_channels,), "int32"))
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            padded = packing is None and any(conv.padding)
            read_as = in_dtype if dot else str(weights.dtype)
            activations = pad_in_kernel(source, conv, planar) if padded else flat(source, read_as)
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            rows = 1 if weights_per_row else tile.rows or rows_together(conv, tile.pixels)

            sum_dtype = target.sum_dtype(word, conv.products) if packing else "float32"
            sum_dtype = "int32" if dot else sum_dtype
            if run_words % tile.depth or tile.depth > 1 and weights.dtype != sum_dtype:
                raise ValueError(f"a depth of {tile.depth} does not fit a run of {run_words} {weights.dtype}")

            def compute(n, oh, ow, columns: int, group, block_start, block: Block, offset):
                """One tile: rows x columns outputs from (oh, ow) on, times the lanes of one block."""
                width, pixels = block.width, rows * columns
                down, right = conv.strides[0] * row_pitch, conv.strides[1] * pitch

                def starts(i):
                    kh, kw = (i % kh_extent, 0) if contiguous else (i // kw_extent, i % kw_extent)
                    row = (
                        (i // kh_extent * height if planar else 0)
                        + oh * conv.strides[0]
                        + kh * conv.dilation[0]
                        + (top - conv.padding[0])
                    )
                    column = ow * conv.strides[1] + kw * conv.dilation[1] + (left - conv.padding[1])
                    first = (n * planes * height + row) * row_pitch + column * pitch + group * words
                    return [first + (m // columns) * down + (m % columns) * right for m in range(pixels)]

                runs = Runs(activations, weights, run_count, run_words, starts, offset, packing is not None)
                sums = T.alloc_buffer((pixels * width,), sum_dtype, scope="local")
                if dot:
                    dotted(runs, sums, pixels, width, dot)
                elif tile.depth > 1:
                    along(runs, sums, pixels, width, tile)
                else:
                    across(runs, sums, pixels, width, tile, tile.together or target.together)

                def pixel(m):
                    y, x = oh + m // columns, ow + m % columns

                    def total(lane, channel, lanes):
                        count = vector(sums, [m * width + lane], lanes)
                        if dot and dot.zero_point:
                            return count + vector(offsets, [channel], lanes)
                        if dot or packing is None:
                            return count
                        return borders.settle(count, y, x, channel, lanes)

                    writer.write(n, y, x, block_start, block.valid, total)

                each(pixels, pixel)

            def row_of_block(n, oh, group, block: Block, index):
                """All tiles of one output row, or of `rows` of them, for one block."""
                start = group * out_group + block.start + index * tile.lanes
                offset = (group * lanes_per_group + block.start + index * tile.lanes) * products
                if weights_per_row:
                    offset += (n * conv.out_height + oh) * set_size
                larger, columns, smaller = split_row(conv.out_width, tile.pixels // rows)

                def tiles(count: int, columns: int, first: int):
                    each(
                        count,
                        lambda t: compute(n, oh, first + t * columns, columns, group, start, block, offset),
                    )

                tiles(larger, columns, 0)
                tiles(smaller, columns - 1, larger * columns)

            bands = conv.out_height // rows

            def rows_of(n, oh):
                def of_group(group):
                    if full:
                        each(len(full), lambda b: row_of_block(n, oh, group, full[0], b))
                    for block in tail:
                        row_of_block(n, oh, group, block, 0)

                each(conv.groups, of_group)

            def all_rows(group, block: Block, index):
                each(
                    conv.batch * bands,
                    lambda r: row_of_block(r // bands, r % bands * rows, group, block, index),
                )

            def bands_of(block: Block, count: int):
                """All bands of rows, of `count` blocks alike of each group."""
                tall = band_of_rows(conv.out_height // rows, conv.out_width * rows) * rows
                bands = conv.out_height // tall
                with T.parallel(0, conv.batch * bands * conv.groups * count) as r:
                    n, band = r // (bands * conv.groups * count), r // (conv.groups * count) % bands
                    group, index = r // count % conv.groups, r % count
                    channel, top = group * out_group + block.start + index * tile.lanes, band * tall
                    written = list(zip(epilogue.outputs, outputs, strict=True))
                    planes = Planes(written, n, top, tall, channel, block.valid, target.floats)
                    writer.planes = planes
                    each(tall // rows, lambda y: row_of_block(n, top + y * rows, group, block, index))
                    planes.write()

            if any(output.planar for output in epilogue.outputs):
                for block in [*full[:1], *tail]:
                    bands_of(block, len(full) if block.valid == tile.lanes else 1)
            elif tile.blocks_outside:
                if full:
                    with T.parallel(0, conv.groups * len(full)) as b:
                        all_rows(b // len(full), full[0], b % len(full))
                for block in tail:
                    with T.parallel(0, conv.groups) as group:
                        all_rows(group, block, 0)
            else:
                with T.parallel(0, conv.batch * bands) as r:
                    rows_of(r // bands, r % bands * rows)
    return builder.get()


def pad_in_kernel(source: tirx.Buffer, conv: Convolution, planar: bool = False) -> tirx.Buffer:
    """Copy float activations between zeros, row by row; small beside the products of the layer. Flat."""
    top, left, bottom, right = conv.padding
    planes, depth = (conv.channels, 1) if planar else (1, conv.channels)
    height, row = conv.height + top + bottom, (conv.width + left + right) * depth
    copied, before = conv.width * depth, left * depth
    images = flat(source)
    padded = T.alloc_buffer((conv.batch * planes * height * row,), "float32")
    zero = tirx.const(0, "float32")

    def fill(start, count: int, value):
        """value(offset, lanes) for `count` elements from start on."""
        whole, rest = divmod(count, 16)
        each(whole, lambda i: store(padded, start + i * 16, 16, value(i * 16, 16)))
        if rest:
            store(padded, start + whole * 16, rest, value(whole * 16, rest))

    def zeros(offset, lanes):
        return spread(zero, lanes)

    with T.parallel(0, conv.batch * planes * height) as r:
        plane, y = r // height, r % height
        with T.If(tirx.all(y >= top, y < top + conv.height)):
            with T.Then():
                fill(r * row, before, zeros)
                start = (plane * conv.height + y - top) * copied
                fill(r * row + before, copied, lambda offset, lanes: load(images, start + offset, lanes))
                fill(r * row + before + copied, row - before - copied, zeros)
            with T.Else():
                fill(r * row, row, zeros)
    return padded
