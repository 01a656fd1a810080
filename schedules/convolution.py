"""Convolution, binary and float, channels last, in register tiles; a dense layer is its 1x1 case.

A tile is `pixels` neighbours of one output row times `lanes` output channels. Its sums live in vector
registers while the kernel walks over the taps and input channels: one word of an activation (8 or 32 channels
of one pixel) is broadcast, xor'ed with the word of every output channel, counted, and added:

    sum[pixel, channel] += popcount(broadcast(activation[pixel]) ^ weight[channel])

and, for float layers, `sum += broadcast(activation) * weight`. Weights are laid out at compile time in the
order in which the kernel reads them (`lay_out`), so the inner loop has no strides to compute.

What a zero in the padding counts
---------------------------------
PyTorch pads the +-1 activations with 0, which a bit cannot say. The halo holds 0 bits, read as -1. Let
`count` be the number of differing bits over all taps, `missing` the taps that lie in the padding at this
pixel, and K' the number of products that do not. A bit 0 in the halo differs from the weight bit where that bit is 1, so

    count = count_valid + sum over missing of popcount(weight[tap])
    dot   = K' - 2 * count_valid
          = K' + 2 * sum over missing of popcount(weight[tap]) - 2 * count
          = base[row class, column class, output channel] - 2 * count

Pixels with the same missing taps form a class; `border_tables` makes the small integer table `base`. Without
padding it is the one number K. The same table serves activations in {0, 1} (`zero_one`); with
a = (s + 1) / 2,

    2 * sum(a * w) = dot + sum over valid taps of w,  which is again  base' - 2 * count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.bits import Packing
from schedules.epilogue import Epilogue
from schedules.targets.kernel_target import KernelTarget, Tile
from schedules.write_back import SCHEDULED, Writer, each, flat, load, store


@dataclass(frozen=True)
class Convolution:
    """Extents without padding; padding: top, left, bottom, right. A dense layer is height 1, width = rows."""

    batch: int
    height: int
    width: int
    channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def out_height(self) -> int:
        top, _, bottom, _ = self.padding
        return (self.height + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.strides[
            0
        ] + 1

    @property
    def out_width(self) -> int:
        _, left, _, right = self.padding
        return (self.width + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.strides[
            1
        ] + 1

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.out_height, self.out_width, self.out_channels)

    @property
    def products(self) -> int:
        """K, the number of products in one output element."""
        return self.kernel[0] * self.kernel[1] * self.channels // self.groups

    @property
    def macs(self) -> int:
        return int(np.prod(self.out_shape)) * self.products


# --------------------------------------------------------------------------- what is made at compile time


def pack_weights(weights: np.ndarray, word: int) -> np.ndarray:
    """bool [O, KH, KW, C / groups], true where +1 -> words [O, KH, KW, words per group]."""
    out_channels, kh, kw, channels = weights.shape
    filled = np.zeros((out_channels, kh, kw, -(-channels // word) * word), bool)
    filled[..., :channels] = weights
    return np.packbits(filled, axis=-1, bitorder="little").view(f"uint{word}")


@dataclass(frozen=True)
class Block:
    """Output channels that are computed together: `width` lanes, of which the first `valid` exist."""

    start: int
    width: int
    valid: int


def blocks_of_group(out_channels: int, lanes: int, quantum: int) -> list[Block]:
    """Full blocks of `lanes`, then one for the rest, its width rounded up to whole vectors of `quantum`."""
    full, rest = divmod(out_channels, lanes)
    blocks = [Block(i * lanes, lanes, lanes) for i in range(full)]
    if rest:
        blocks.append(Block(full * lanes, -(-rest // quantum) * quantum, rest))
    return blocks


def lay_out(weights: np.ndarray, groups: int, tile: Tile) -> np.ndarray:
    """[O, KH, KW, C] -> flat, in the kernel's order: group, block, kh, kw, c, lane; missing lanes are 0."""
    pieces = []
    for group in np.split(weights, groups):
        for block in blocks_of_group(len(group), tile.lanes, tile.quantum):
            piece = np.zeros((block.width, *weights.shape[1:]), weights.dtype)
            piece[: block.valid] = group[block.start : block.start + block.valid]
            pieces.append(np.moveaxis(piece, 0, -1).ravel())
    return np.concatenate(pieces)


def _taps(extent: int, out: int, kernel: int, stride: int, before: int, dilation: int) -> np.ndarray:
    """bool [out, kernel]: which taps of each output position lie inside the image."""
    position = np.arange(out)[:, None] * stride - before + np.arange(kernel)[None] * dilation
    return (position >= 0) & (position < extent)


def _border_classes(conv: Convolution) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """For rows and columns: the distinct sets of valid taps, and which of them each output position has."""
    top, left, _, _ = conv.padding
    rows = _taps(conv.height, conv.out_height, conv.kernel[0], conv.strides[0], top, conv.dilation[0])
    columns = _taps(conv.width, conv.out_width, conv.kernel[1], conv.strides[1], left, conv.dilation[1])
    return np.unique(rows, axis=0, return_inverse=True), np.unique(columns, axis=0, return_inverse=True)


def border_dtype(conv: Convolution) -> str:
    """Of the base table: its entries reach K' + 2 K, and with `zero_one` 2 K more; small, for it is in the artifact."""
    return "int16" if 5 * conv.products <= np.iinfo(np.int16).max else "int32"


def border_tables(
    conv: Convolution, weights: np.ndarray, zero_one: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """base [row classes, column classes, O] of `border_dtype`, row_class int32 [OH], column_class int32 [OW]: see above.

    weights: bool [O, KH, KW, C / groups].
    """
    (rows, row_class), (columns, column_class) = _border_classes(conv)
    ones = weights.sum(-1, dtype=np.int32)  # [O, KH, KW]
    channels = conv.channels // conv.groups
    valid = (rows[:, None, :, None] & columns[None, :, None, :]).astype(np.int32)  # [RC, CC, KH, KW]
    base = channels * valid.sum((2, 3))[..., None] + 2 * np.einsum("rcij,oij->rco", 1 - valid, ones)
    if zero_one:
        base = base + np.einsum("rcij,oij->rco", valid, 2 * ones - channels)
    return base.astype(border_dtype(conv)), row_class.ravel().astype(np.int32), column_class.ravel().astype(np.int32)


# --------------------------------------------------------------------------- the plain references


def binary_convolution_reference(
    activations: np.ndarray, weights: np.ndarray, conv: Convolution
) -> np.ndarray:
    """int32 [N, OH, OW, O]: sums of products, padded with 0.

    activations: small integers [N, H, W, C]; weights: the same [O, KH, KW, C / groups].
    """
    top, left, bottom, right = conv.padding
    padded = np.pad(activations.astype(np.float32), ((0, 0), (top, bottom), (left, right), (0, 0)))
    group_in, group_out = conv.channels // conv.groups, conv.out_channels // conv.groups
    out = np.zeros(conv.out_shape, np.float32)  # exact: |sum| <= K < 2**24
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
                tap = weights[o, i, j].astype(np.float32)
                out[..., o] += seen[..., g * group_in : (g + 1) * group_in] @ tap.T
    return out.astype(np.int32)


# --------------------------------------------------------------------------- the kernel


def split_run(length: int, limit: int) -> tuple[int, int, int]:
    """Cut a run of words into `count` equal pieces of at most `limit` and a rest: (piece, count, rest)."""
    count = -(-length // limit)
    piece = -(-length // count)
    return piece, length // piece, length % piece


def binary_convolution(
    conv: Convolution,
    packing: Packing,
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    bordered: bool,
    weights_per_row: bool = False,
) -> tirx.PrimFunc:
    """Parameters of the kernel: packed activations, weights as `lay_out` gives them, the epilogue's operands,
    with `bordered` the three `border_tables`, and the outputs.

    packing: how the activations are packed; its halo covers the convolution's padding.
    weights_per_row: each row of each image has weights of its own, one set after another (a product of two
    activations, whose rows are its leading extents).
    """
    shape = packing.shape(conv.batch, conv.height, conv.width)
    return _tiled(conv, packing, shape, tile, target, epilogue, bordered, weights_per_row)


def float_convolution(
    conv: Convolution, in_shape: tuple[int, ...], tile: Tile, target: KernelTarget, epilogue: Epilogue
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 (`in_shape`: [N, H, W, C], or the last of these extents
    where the first are 1), weights as `lay_out` gives them, the epilogue's operands, and the outputs."""
    return _tiled(conv, None, in_shape, tile, target, epilogue, False, False)


def _tiled(
    conv: Convolution,
    packing: Packing | None,
    declared: tuple[int, ...],
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    bordered: bool,
    weights_per_row: bool,
) -> tirx.PrimFunc:
    words = packing.words_per_group if packing else conv.channels // conv.groups
    top, left, bottom, right = packing.halo if packing else (0, 0, 0, 0)
    if packing and any(h < p for h, p in zip(packing.halo, conv.padding, strict=True)):
        raise ValueError(
            f"the halo {packing.halo} of the activations does not cover the padding {conv.padding}"
        )
    in_shape: tuple[int, ...] = (
        packing.shape(conv.batch, conv.height, conv.width)
        if packing
        else (conv.batch, conv.height, conv.width, conv.channels)
    )
    in_dtype = packing.dtype if packing else "float32"
    out_group = conv.out_channels // conv.groups
    blocks = blocks_of_group(out_group, tile.lanes, tile.quantum)
    products = conv.kernel[0] * conv.kernel[1] * words  # words per lane of one block
    lanes_per_group = sum(b.width for b in blocks)
    full = [b for b in blocks if b.valid == tile.lanes]
    tail = [b for b in blocks if b.valid != tile.lanes]

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr({"tirx.noalias": True, SCHEDULED: True})
        source = T.arg("activations", T.buffer(declared, in_dtype))
        sets = conv.batch * conv.height if weights_per_row else 1
        set_size = conv.groups * lanes_per_group * products
        weights = T.arg("weights", T.buffer((sets * set_size,), in_dtype))
        operands = [
            T.arg(f"operand{i}", T.buffer(shape, dtype)) for i, (shape, dtype) in enumerate(epilogue.operands)
        ]
        borders = border_buffers(conv) if bordered else None
        outputs = [T.arg(f"output{i}", T.buffer(o.shape, o.dtype)) for i, o in enumerate(epilogue.outputs)]
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            if packing is None and any(conv.padding):
                source, in_shape = pad_in_kernel(source, conv)
                top, left = conv.padding[:2]
            activations = flat(source)
            pitch, row_pitch = in_shape[3], in_shape[2] * in_shape[3]
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            # Taps of one kernel row are neighbours in memory when nothing is skipped between them.
            contiguous = conv.dilation[1] == 1 and conv.groups == 1
            kh_extent, kw_extent = conv.kernel
            runs, run_words = (kh_extent, kw_extent * words) if contiguous else (kh_extent * kw_extent, words)

            def compute(n, oh, ow, pixels: int, group, block_start, block: Block, offset):
                """One tile: `pixels` outputs from (oh, ow) on, times the lanes of one block."""
                width = block.width
                sum_dtype = target.sum_dtype(packing.word, conv.products) if packing else "float32"
                # A byte counts at most 8 a step; 31 steps fit into its 255.
                narrow = packing is not None and packing.word == 8
                sums = T.alloc_buffer((pixels * width,), sum_dtype, scope="local")
                part = T.alloc_buffer((pixels * width,), "uint8", scope="local") if narrow else sums
                for m in range(pixels):
                    store(sums, m * width, width, T.broadcast(tirx.const(0, sum_dtype), width))

                def run(i):
                    kh, kw = (i, 0) if contiguous else (i // conv.kernel[1], i % conv.kernel[1])
                    row = oh * conv.strides[0] + kh * conv.dilation[0] + (top - conv.padding[0])
                    column = ow * conv.strides[1] + kw * conv.dilation[1] + (left - conv.padding[1])
                    a_start = (n * in_shape[1] + row) * row_pitch + column * pitch + group * words
                    w_start = offset + i * (run_words * width)

                    def steps(first, count: int):
                        def step(k):
                            w = load(weights, w_start + (first + k) * width, width)
                            for m in range(pixels):
                                a = activations[a_start + (m * conv.strides[1]) * pitch + first + k]
                                a = T.broadcast(a, width)
                                old = load(part, m * width, width)
                                new = tirx.popcount(a ^ w) if packing else a * w
                                store(part, m * width, width, old + new)

                        if narrow:
                            for m in range(pixels):
                                store(part, m * width, width, T.broadcast(tirx.const(0, "uint8"), width))
                        each(count, step)
                        if narrow:
                            for m in range(pixels):
                                wide = load(part, m * width, width).astype(f"{sum_dtype}x{width}")
                                store(sums, m * width, width, load(sums, m * width, width) + wide)

                    if narrow:
                        piece, count, rest = split_run(run_words, 31)
                        each(count, lambda p: steps(p * piece, piece))
                        if rest:
                            steps(count * piece, rest)
                    else:
                        steps(0, run_words)

                each(runs, run)
                # The epilogue reads the sums from memory, so that its loops need not be unrolled.
                settled = T.alloc_buffer((pixels * width,), sum_dtype, scope="local")
                for m in range(pixels):
                    store(settled, m * width, width, load(sums, m * width, width))

                def pixel(m):
                    def total(lane, channel):
                        value = settled[m * width + lane]
                        if packing is None:
                            return value
                        return dot_product(value, conv, borders, oh, ow + m, channel)

                    writer.write(n, oh, ow + m, block_start, block.valid, total)

                each(pixels, pixel)

            def row_of_block(n, oh, group, block: Block, index):
                """All tiles of one output row for one block."""
                start = group * out_group + block.start + index * tile.lanes
                offset = (group * lanes_per_group + block.start + index * tile.lanes) * products
                if weights_per_row:
                    offset += (n * conv.out_height + oh) * set_size
                count, rest = divmod(conv.out_width, tile.pixels)
                each(
                    count,
                    lambda t: compute(n, oh, t * tile.pixels, tile.pixels, group, start, block, offset),
                )
                if rest:
                    compute(n, oh, count * tile.pixels, rest, group, start, block, offset)

            def rows_of(n, oh):
                def of_group(group):
                    if full:
                        each(len(full), lambda b: row_of_block(n, oh, group, full[0], b))
                    for block in tail:
                        row_of_block(n, oh, group, block, 0)

                each(conv.groups, of_group)

            with T.parallel(0, conv.batch * conv.out_height) as r:
                rows_of(r // conv.out_height, r % conv.out_height)
    return builder.get()


def border_buffers(conv: Convolution) -> tuple[tirx.Buffer, tirx.Buffer, tirx.Buffer]:
    """The kernel's parameters for `border_tables`."""
    (rows, _), (columns, _) = _border_classes(conv)
    return (
        T.arg("base", T.buffer((len(rows), len(columns), conv.out_channels), border_dtype(conv))),
        T.arg("row_class", T.buffer((conv.out_height,), "int32")),
        T.arg("column_class", T.buffer((conv.out_width,), "int32")),
    )


def dot_product(
    count: Any, conv: Convolution, borders: tuple[tirx.Buffer, ...] | None, oh: Any, ow: Any, channel: Any
) -> Any:
    """base - 2 * count as int32; see above."""
    start = tirx.const(conv.products, "int32")
    if borders:
        base, row_class, column_class = borders
        start = base[row_class[oh], column_class[ow], channel].astype("int32")
    return start - tirx.const(2, "int32") * count.astype("int32")


def pad_in_kernel(source: tirx.Buffer, conv: Convolution) -> tuple[tirx.Buffer, tuple[int, int, int, int]]:
    """Copy float activations between zeros; the copy is small beside the products of the layer."""
    top, left, bottom, right = conv.padding
    shape = (conv.batch, conv.height + top + bottom, conv.width + left + right, conv.channels)
    padded = T.alloc_buffer(shape, "float32")
    with T.parallel(0, shape[0] * shape[1]) as r:
        n, y = r // shape[1], r % shape[1]
        with T.serial(0, shape[2]) as x, T.serial(0, shape[3]) as c:
            inside = tirx.all(y >= top, y < top + conv.height, x >= left, x < left + conv.width)
            value = tirx.if_then_else(inside, source[n, y - top, x - left, c], tirx.const(0, "float32"))
            T.buffer_store(padded, value, [n, y, x, c])
    return padded, shape
