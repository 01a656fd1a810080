"""Packing of images that lie plane by plane, [N, C, H, W]: lanes are neighbouring pixels of one plane.

A vector of words, one for each pixel, takes in a bit from each of its channels; then the words go to their
places, channels last. So what moves across memory is 1/32 of the image where a word has 32 bits.

The plain reference is `bits.pack` after `Epilogue.evaluate`, with the axes of its truth turned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.bits import Packing
from schedules.parts.emit import each, flat, load, spread, store
from schedules.parts.epilogue import Epilogue
from schedules.parts.planes import band_of_rows, interleaved, square
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments
from schedules.targets.kernel_target import KernelTarget, Lanes

PIXELS = 64  # at a time: of a plane, four lines of the caches, which are read one after the other
SQUARE = 16  # bytes, which fill the narrowest vector registers


def default_lanes(packing: Packing, target: KernelTarget) -> Lanes:
    """Measured on Zen 4: four registers together load neighbouring lines one after the other, and not each
    line of all channels before the next one."""
    if packing.byte_a_channel:
        return Lanes(lanes=SQUARE)
    lanes = min(PIXELS, 4 * target.floats)
    return target.plane_lanes or Lanes(lanes=lanes, together=PIXELS // lanes)


def planar_packing_kernel(
    extents: tuple[int, ...], epilogue: Epilogue, most: Lanes, plane_word: int = 8
) -> tirx.PrimFunc:
    """Parameters of the kernel: the epilogue's operands and its one output, which is packed.

    extents: batch, channels, height if there is one, and width of what is packed; the operands broadcast
    against these; most: pixels of one plane, fewer where it has fewer; plane_word: as of `KernelTarget`.
    """
    batch, channels, *plane = extents
    height, width = (1, *plane)[-2:]
    (output,) = epilogue.outputs
    packing = output.packing
    assert packing is not None
    group = channels // packing.groups
    # Rows that follow each other are one long row, for operands that do not vary along rows or columns alone.
    shapes = [(1,) * (len(extents) - len(shape)) + tuple(shape) for shape, _ in epilogue.operands]
    joined = all(np.prod(shape[2:]) == 1 or shape[2:] == (*plane,) for shape in shapes)
    rows = band_of_rows(height, width) if joined else 1
    count = rows * width
    # With a byte a channel there are as many words as numbers; squares of them are turned in registers.
    in_squares = packing.groups > 1 and group == 1 and packing.word == 8
    lanes = square(min(count, channels) if in_squares else count, most.lanes)
    # Words lie low byte first, so that several are one wider word.
    wider = not packing.byte_a_channel and packing.words_per_group * packing.word % plane_word == 0
    word_bits = max(packing.word, plane_word) if wider else packing.word
    of_word, dtype = word_bits // packing.word, f"uint{word_bits}"
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        operands = operand_arguments(epilogue)
        out = T.arg("output0", T.buffer(output.shape, output.dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            Writer(epilogue, [out], operands, (batch, height, width)).clear_halos()
            words = flat(out, dtype)
            top, left, _, _ = packing.halo
            _, out_height, out_width, length = packing.shape(batch, height, width)
            pitch = length // of_word
            views = []
            for shape, operand in zip(shapes, operands, strict=True):
                view = (*shape[:2], int(np.prod(shape[2:]))) if joined else shape
                views.append(T.decl_buffer(view, operand.dtype, data=operand.data))

            with T.parallel(0, batch * (height // rows)) as r:
                n, band = r // (height // rows), r % (height // rows)
                together = lanes if in_squares else 1  # words of a pixel that are written at a time
                kept = T.alloc_buffer((count * together,), dtype, scope="local")

                def bits(pixel, channel, bit: int) -> Any:
                    """This bit set in the words of `lanes` pixels whose truth holds for the channel."""
                    at = [band * count + pixel] if joined else [band, pixel]
                    truth = epilogue.emit(None, [n, channel, *at], views, lanes)[0]
                    one, zero = (spread(tirx.const(v, dtype), lanes) for v in (1 << bit, 0))
                    return tirx.Select(truth, one, zero)

                def put(first):
                    """What is kept goes to words `first` to `first + together` of each pixel."""
                    with T.serial(0, rows) as y, T.serial(0, width) as x:
                        place = ((n * out_height + band * rows + y + top) * out_width + x + left) * pitch
                        store(
                            words, place + first, together, load(kept, (y * width + x) * together, together)
                        )

                def word(first, channel, taken: int):
                    """Each pixel's word of so many channels from this one on."""

                    def pieces(pixels):
                        values = [bits(pixel, channel, 0) for pixel in pixels]
                        for j in range(1, taken):
                            for i, pixel in enumerate(pixels):
                                values[i] = values[i] | bits(pixel, channel + j, j)
                        for pixel, value in zip(pixels, values, strict=True):
                            store(kept, pixel, lanes, value)

                    length = most.together * lanes
                    starts = range(0, length, lanes)
                    each(count // length, lambda i: pieces([i * length + j for j in starts]))
                    rest: list[Any] = list(range(count - count % length, count - lanes + 1, lanes))
                    if count % lanes:
                        rest.append(count - lanes)
                    if rest:
                        pieces(rest)
                    put(first)

                def square_of(channel):
                    """`lanes` channels from this one on, a byte each."""

                    def piece(pixel):
                        rows = [T.Bind(bits(pixel, channel + c, 0)) for c in range(lanes)]
                        for i, turned in enumerate(interleaved(rows)):
                            store(kept, (pixel + i) * lanes, lanes, turned)

                    each(count // lanes, lambda i: piece(i * lanes))
                    if count % lanes:
                        piece(count - lanes)
                    put(channel)

                if in_squares:
                    each(channels // lanes, lambda b: square_of(b * lanes))
                    if channels % lanes:
                        square_of(channels - lanes)
                else:
                    whole, left_over = divmod(group, word_bits)
                    with T.serial(0, packing.groups) as g:
                        first = g * (packing.words_per_group // of_word)
                        each(whole, lambda w: word(first + w, g * group + w * word_bits, word_bits))
                        if left_over:
                            word(first + whole, g * group + whole * word_bits, left_over)
    return builder.get()
