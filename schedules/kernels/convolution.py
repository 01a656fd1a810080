"""Convolution, binary, int8 and float, channels last, in register tiles; a dense layer is its 1x1 case.

A tile is `pixels` neighbours of one output row times `lanes` output channels. Its sums live in vector
registers while the kernel walks over the taps and input channels (sums.py): a word of an activation is 8, 16
or 32 channels of one pixel, and

    sum[pixel, channel] += popcount(activation[pixel] ^ weight[channel])

or what a table says of four bits of both (tables.py), and, for float layers, `sum += activation * weight`;
for int8 layers a word is one to four channels, and the processor's `DotProduct` multiplies and adds them up.
Weights are laid out at compile time in the order in which the kernel reads them (`lay_out`), so the inner
loop has no strides to compute. What the three share is in tiled.py.

A border of zeros is exact: see borders.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.kernels.tiled import Arithmetic, Image, Settle, tiled_convolution
from schedules.parts.bit_weights import FLOATS, BitWeights
from schedules.parts.bits import Packing
from schedules.parts.borders import Borders, Ending, count_dtype
from schedules.parts.emit import cast, flat, in_pieces, load, spread, store, vector
from schedules.parts.epilogue import Epilogue
from schedules.parts.sums import Runs, across, along, dotted
from schedules.parts.tables import (
    MOST,
    MOST_SIGNED,
    LookUps,
    expand,
    looked_up,
    prepare_activations,
    prepare_weights,
    worth_expanding,
)
from schedules.parts.tables import WORD as LOOKED_UP
from schedules.parts.weights import lay_out
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


def binary_convolution(
    conv: Convolution,
    packing: Packing,
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    ending: Ending,
    border_in_bytes: bool = False,
    weights_per_row: bool = False,
) -> tirx.PrimFunc:
    """Parameters of the kernel: packed activations, weights as `lay_out` gives them, the epilogue's operands,
    the tables that the ending needs, and the outputs. border_in_bytes: see `Borders`.

    packing: how the activations are packed; its halo covers the convolution's padding.
    weights_per_row: each row of each image has weights of its own, one set after another (a product of two
    activations, whose rows are its leading extents).
    """
    word = tile.word or packing.word
    words, left_over = divmod(packing.words_per_group * packing.word, word)
    if left_over:
        raise ValueError(
            f"Groups of {packing.words_per_group} words of {packing.word} bits, in parts of {word}."
        )
    image = _packed_image(conv, packing, elements=words, pitch=words * packing.groups)
    how = _look_ups(conv, packing, tile, target, ending, weights_per_row)
    byte, signed, fours = (how.byte, how.signed, how.fours) if how else (None, False, 1)
    dtype, sum_dtype = f"uint{max(word, 8)}", byte or target.sum_dtype(word, conv.products)
    # More look-ups take so long that what comes after them does not.
    in_vectors = signed or byte and ending != "truth" and len(epilogue.operands) > 2

    def prepare(stored: tirx.Buffer) -> tirx.Buffer:
        return expand(stored, how) if how and how.expanded else stored

    def add_up(runs: Runs, sums: tirx.Buffer, pixels: int, width: int) -> None:
        if how:
            looked_up(runs, sums, pixels, width, tile.unroll, how)
        elif tile.depth > 1:
            along(runs, sums, pixels, width, tile)
        else:
            across(runs, sums, pixels, width, tile, tile.together or target.together)

    def settle() -> Settle:
        if signed:
            return _widened
        borders = Borders(
            conv,
            ending,
            border_in_bytes,
            limits=limit_dtype(conv, packing, tile),
            alone=how is not None,
        )
        return borders.settle

    arithmetic = Arithmetic(
        weights=dtype,
        sums=sum_dtype,
        words=image.run // fours,
        deep=dtype == sum_dtype,
        read=partial(prepare_activations, how=how) if how else partial(flat, dtype=dtype),
        prepare=prepare,
        add_up=add_up,
        settle=settle,
        falls=None if any(conv.padding) else not signed,
        apart=target.sums_apart and not how,
        halos_alone=how is not None,
        written=target.floats if in_vectors else None,
    )
    return tiled_convolution(image, arithmetic, tile, target, epilogue, weights_per_row=weights_per_row)


def limit_dtype(conv: Convolution, packing: Packing, tile: Tile) -> str:
    """Of the limits that counts are compared with, the table of a "truth"."""
    few = tile.word == LOOKED_UP and _count_look_ups(conv, packing) <= MOST
    return "uint8" if few else count_dtype(conv)


def _count_look_ups(conv: Convolution, packing: Packing) -> int:
    """Of a sum, in a tile whose bits tables.py counts."""
    return conv.kernel[0] * conv.kernel[1] * packing.words_per_group * packing.word // LOOKED_UP


def _look_ups(
    conv: Convolution,
    packing: Packing,
    tile: Tile,
    target: KernelTarget,
    ending: Ending,
    weights_per_row: bool,
) -> LookUps | None:
    """For a tile whose bits tables.py counts; else None. Raises ValueError for a target that has nothing for
    it."""
    if tile.word != LOOKED_UP:
        return None
    if target.look_up is None:
        raise ValueError(f"kernels of {target.name} have no tables for words of {LOOKED_UP} bits")
    count = _count_look_ups(conv, packing)
    signed = ending == "dot" and count <= MOST_SIGNED
    return LookUps(
        look_up=target.look_up,
        count=count,
        signed=signed,
        start=conv.products - LOOKED_UP * count if signed else 0,  # what fills up the last word is no product
        fours=2 if weights_per_row else 1,
        expanded=not weights_per_row and worth_expanding(conv, count),
    )


def lay_out_bits(packed: np.ndarray, groups: int, tile: Tile) -> np.ndarray:
    """Weights as `binary_convolution` reads them. packed: as `pack_weights` gives them."""
    if tile.word == LOOKED_UP:
        return lay_out(prepare_weights(packed), groups, tile)
    return lay_out(packed.view(f"uint{tile.word}") if tile.word else packed, groups, tile)


def int8_convolution(
    conv: Convolution,
    packing: Packing,
    tile: Tile,
    target: KernelTarget,
    epilogue: Epilogue,
    *,
    in_bits: bool = False,
) -> tirx.PrimFunc:
    """Parameters of the kernel: packed activations, weights as `lay_out` gives them after `pack_int8`, the
    epilogue's operands, with a zero point the `offsets` of the sums, and the outputs. in_bits: the weights
    lie as `store_in_bits` has them for `int8_code`.

    The epilogue's sum is int32. packing: its zero point is that of `target.dot`, and its halo leaves
    `bytes_after` behind what is read: whole words of bytes are read, also at the end of a run.
    """
    spare = (packing.halo[2] - conv.padding[2]) * (conv.width + packing.halo[1] + packing.halo[3])
    if spare * conv.channels < bytes_after(conv, target.dot.word):
        raise ValueError(f"the halo {packing.halo} leaves less behind the last run than is read of it")
    dot = target.dot
    image = _packed_image(conv, packing, elements=conv.channels // conv.groups, pitch=conv.channels)

    def settle() -> Settle:
        if not dot.zero_point:
            return _as_it_is
        offsets = T.arg("offsets", T.buffer((conv.out_channels,), "int32"))
        return lambda count, y, x, channel, lanes: count + vector(offsets, [channel], lanes)

    arithmetic = Arithmetic(
        weights=f"uint{dot.word}",
        sums="int32",
        words=-(-image.run // (dot.word // 8)),
        read=flat,
        add_up=lambda runs, sums, pixels, width: dotted(runs, sums, pixels, width, dot),
        settle=settle,
        code=int8_code(conv, dot.word) if in_bits else None,
    )
    return tiled_convolution(image, arithmetic, tile, target, epilogue)


def int8_code(conv: Convolution, word: int) -> BitWeights:
    return BitWeights(dtype=f"uint{word}", numbers=conv.taps_in_a_run * (conv.channels // conv.groups))


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
    in_bits: bool = False,
    half: bool = False,
) -> tirx.PrimFunc:
    """Parameters of the kernel: activations float32 (`in_shape`: [N, H, W, C], or the last of these extents
    where the first are 1), weights as `lay_out` gives them, the epilogue's operands, and the outputs.
    in_bits: the weights lie as `store_in_bits` has them for `FLOATS`. half: the weights are float16, to which
    the kernel rounds a copy of the activations; see `IN_HALF` for the sums.

    planar: the activations are [N, C, H, W], and the weights were laid out from [O, C, KH, KW]; for the few
    channels of a network's input, and without groups or dilation.
    """
    planes = conv.channels if planar else 1
    image = Image(
        conv=conv,
        shape=in_shape,
        dtype="float32",
        halo=conv.padding,
        elements=conv.channels // conv.groups // planes,
        pitch=conv.channels // planes,
        planar=planar,
    )
    together = tile.together or target.together
    dtype = "float16" if half else "float32"
    copied = half or any(conv.padding)

    def add_up(runs: Runs, sums: tirx.Buffer, pixels: int, width: int) -> None:
        if tile.depth > 1:
            along(runs, sums, pixels, width, tile)
        else:
            across(runs, sums, pixels, width, tile, together)

    arithmetic = Arithmetic(
        weights=dtype,
        sums="float32",
        words=image.run,
        read=lambda source: pad_in_kernel(source, conv, planar, dtype) if copied else flat(source),
        deep=not (half or planar or in_bits),
        add_up=add_up,
        settle=lambda: _as_it_is,
        code=FLOATS if in_bits else None,
    )
    return tiled_convolution(image, arithmetic, tile, target, epilogue)


def _packed_image(conv: Convolution, packing: Packing, *, elements: int, pitch: int) -> Image:
    """elements, pitch: as of `Image`. Raises ValueError for a halo that is too small."""
    if any(h < p for h, p in zip(packing.halo, conv.padding, strict=True)):
        raise ValueError(
            f"the halo {packing.halo} of the activations does not cover the padding {conv.padding}"
        )
    shape = packing.shape(conv.batch, conv.height, conv.width)
    return Image(
        conv=conv, shape=shape, dtype=packing.dtype, halo=packing.halo, elements=elements, pitch=pitch
    )


def _as_it_is(count: Any, y: Any, x: Any, channel: Any, lanes: int) -> Any:
    return count


def _widened(dot: Any, y: Any, x: Any, channel: Any, lanes: int) -> Any:
    return cast(dot, "int32", lanes)


def pad_in_kernel(
    source: tirx.Buffer, conv: Convolution, planar: bool = False, dtype: str = "float32"
) -> tirx.Buffer:
    """Copy float activations between zeros, row by row; small beside the products of the layer. Flat."""
    top, left, bottom, right = conv.padding
    planes, depth = (conv.channels, 1) if planar else (1, conv.channels)
    height, row = conv.height + top + bottom, (conv.width + left + right) * depth
    copied, before = conv.width * depth, left * depth
    images = flat(source)
    padded = T.alloc_buffer((conv.batch * planes * height * row,), dtype)
    zero = tirx.const(0, dtype)

    def fill(start, count: int, value):
        """value(offset, lanes) for `count` elements from start on."""
        in_pieces(count, 16, lambda at, lanes: store(padded, start + at, lanes, value(at, lanes)))

    def zeros(offset, lanes):
        return spread(zero, lanes)

    def rounded(at, lanes):
        value = load(images, at, lanes)
        return value if dtype == "float32" else cast(value, dtype, lanes)

    with T.parallel(0, conv.batch * planes * height) as r:
        plane, y = r // height, r % height
        with T.If(tirx.all(y >= top, y < top + conv.height)):
            with T.Then():
                fill(r * row, before, zeros)
                start = (plane * conv.height + y - top) * copied
                fill(r * row + before, copied, lambda offset, lanes: rounded(start + offset, lanes))
                fill(r * row + before + copied, row - before - copied, zeros)
            with T.Else():
                fill(r * row, row, zeros)
    return padded
