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

from schedules.epilogue import Epilogue
from schedules.write_back import KERNEL_ATTRIBUTES, Writer, band_of_rows, each, flat, load, spread, store

LANES = 16
CHAINS = 4  # one after the other, 32 bits would wait for each other


def planar_packing_kernel(extents: tuple[int, ...], epilogue: Epilogue) -> tirx.PrimFunc:
    """Parameters of the kernel: the epilogue's operands and its one output, which is packed.

    extents: batch, channels, height if there is one, and width of what is packed; the operands broadcast
    against these.
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
    lanes = min(LANES, 1 << count.bit_length() - 1)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        operands = [
            T.arg(f"operand{i}", T.buffer(shape, dtype)) for i, (shape, dtype) in enumerate(epilogue.operands)
        ]
        out = T.arg("output0", T.buffer(output.shape, output.dtype))
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            Writer(epilogue, [out], operands, (batch, height, width)).clear_halos()
            words = flat(out)
            top, left, _, _ = packing.halo
            _, out_height, out_width, pitch = packing.shape(batch, height, width)
            views = []
            for shape, operand in zip(shapes, operands, strict=True):
                view = (*shape[:2], int(np.prod(shape[2:]))) if joined else shape
                views.append(T.decl_buffer(view, operand.dtype, data=operand.data))

            def word_at(n, band, pixel, channel, bits: int) -> Any:
                """The words of `lanes` pixels, of which `bits` channels from this one on are taken."""
                at = [band * count + pixel] if joined else [band, pixel]
                chains: list[Any] = []
                for j in range(bits):
                    truth = epilogue.emit(None, [n, channel + j, *at], views, lanes)[0]
                    one, zero = (spread(tirx.const(value, packing.dtype), lanes) for value in (1 << j, 0))
                    bit = tirx.Select(truth, one, zero)
                    if j < CHAINS:
                        chains.append(bit)
                    else:
                        chains[j % CHAINS] = chains[j % CHAINS] | bit
                value = chains[0]
                for chain in chains[1:]:
                    value = value | chain
                return value

            with T.parallel(0, batch * (height // rows)) as r:
                n, band = r // (height // rows), r % (height // rows)
                row = T.alloc_buffer((count,), packing.dtype, scope="local")

                def word(word_, channel, bits: int):
                    """One word of each pixel of the band."""

                    def piece(pixel):
                        store(row, pixel, lanes, word_at(n, band, pixel, channel, bits))

                    each(count // lanes, lambda i: piece(i * lanes))
                    if count % lanes:
                        piece(count - lanes)
                    with T.serial(0, rows) as y, T.serial(0, width) as x:
                        place = ((n * out_height + band * rows + y + top) * out_width + x + left) * pitch
                        T.buffer_store(words, load(row, y * width + x, 1), [place + word_])

                whole, rest = divmod(group, packing.word)
                with T.serial(0, packing.groups) as g:
                    first = g * packing.words_per_group
                    each(whole, lambda w: word(first + w, g * group + w * packing.word, packing.word))
                    if rest:
                        word(first + whole, g * group + whole * packing.word, rest)
    return builder.get()
