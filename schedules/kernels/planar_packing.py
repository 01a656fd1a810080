"""Packing of images that lie plane by plane, [N, C, H, W]: lanes are neighbouring pixels of one plane.

A vector of words, one for each pixel, takes in a bit from each of its channels; then the words go to their
places, channels last. So what moves across memory is 1/32 of the image where a word has 32 bits.

The plain reference is `bits.pack` after `Epilogue.evaluate`, with the axes of its truth turned.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class _Truths:
    """What the epilogue says of neighbouring pixels of one plane."""

    epilogue: Epilogue
    operands: list[tirx.Buffer]
    joined: bool  # a plane of theirs is one long row
    lanes: int  # pixels at a time
    dtype: str  # of words

    def bits(self, n: Any, channel: Any, at: list[Any], bit: int) -> Any:
        """This bit set in the words of the pixels from this one on whose truth holds for the channel."""
        truth = self.epilogue.emit(None, [n, channel, *at], self.operands, self.lanes)[0]
        one, zero = (spread(tirx.const(v, self.dtype), self.lanes) for v in (1 << bit, 0))
        return tirx.Select(truth, one, zero)


@dataclass(frozen=True, kw_only=True)
class _Words:
    """Where the words of a pixel are written: channels last, within the halo."""

    buffer: tirx.Buffer
    height: int
    width: int
    pitch: int  # words from one pixel to the next
    halo: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class _Band:
    """Rows of an image that are packed together. Words are kept pixel by pixel, `at_once` of each, before
    they go to their places."""

    n: Any
    number: Any  # from the top of the image
    rows: int
    width: int
    truths: _Truths
    words: _Words
    kept: tirx.Buffer
    at_once: int

    @property
    def count(self) -> int:
        return self.rows * self.width

    def pack_word(self, first: Any, channel: Any, taken: int, together: int) -> None:
        """Word `first` of each pixel, of so many channels from this one on. together: vectors of pixels that
        are read side by side."""
        lanes = self.truths.lanes

        def pieces(pixels: list[Any]) -> None:
            values = [self._bits(pixel, channel, 0) for pixel in pixels]
            for j in range(1, taken):
                for i, pixel in enumerate(pixels):
                    values[i] = values[i] | self._bits(pixel, channel + j, j)
            for pixel, value in zip(pixels, values, strict=True):
                store(self.kept, pixel, lanes, value)

        length = together * lanes
        starts = range(0, length, lanes)
        each(self.count // length, lambda i: pieces([i * length + j for j in starts]))
        rest: list[Any] = list(range(self.count - self.count % length, self.count - lanes + 1, lanes))
        if self.count % lanes:
            rest.append(self.count - lanes)
        if rest:
            pieces(rest)
        self._put(first)

    def pack_square(self, channel: Any) -> None:
        """A byte each of as many channels from this one on as there are pixels at a time."""
        lanes = self.truths.lanes

        def piece(pixel: Any) -> None:
            planes = [T.Bind(self._bits(pixel, channel + c, 0)) for c in range(lanes)]
            for i, turned in enumerate(interleaved(planes)):
                store(self.kept, (pixel + i) * lanes, lanes, turned)

        each(self.count // lanes, lambda i: piece(i * lanes))
        if self.count % lanes:
            piece(self.count - lanes)
        self._put(channel)

    def _bits(self, pixel: Any, channel: Any, bit: int) -> Any:
        at = [self.number * self.count + pixel] if self.truths.joined else [self.number, pixel]
        return self.truths.bits(self.n, channel, at, bit)

    def _put(self, first: Any) -> None:
        """What is kept goes to words `first` to `first + at_once` of each pixel."""
        out, (top, left, _, _) = self.words, self.words.halo
        with T.serial(0, self.rows) as y, T.serial(0, self.width) as x:
            row = self.n * out.height + self.number * self.rows + y + top
            word = (row * out.width + x + left) * out.pitch + first
            of_pixel = load(self.kept, (y * self.width + x) * self.at_once, self.at_once)
            store(out.buffer, word, self.at_once, of_pixel)


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
    # With a byte a channel there are as many words as numbers; squares of them are turned in registers.
    in_squares = packing.groups > 1 and group == 1 and packing.word == 8
    lanes = square(min(rows * width, channels) if in_squares else rows * width, most.lanes)
    at_once = lanes if in_squares else 1  # words of a pixel that are written
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
            _, out_height, out_width, length = packing.shape(batch, height, width)
            words = _Words(
                buffer=flat(out, dtype),
                height=out_height,
                width=out_width,
                pitch=length // of_word,
                halo=packing.halo,
            )
            views = []
            for shape, operand in zip(shapes, operands, strict=True):
                view = (*shape[:2], int(np.prod(shape[2:]))) if joined else shape
                views.append(T.decl_buffer(view, operand.dtype, data=operand.data))
            truths = _Truths(epilogue=epilogue, operands=views, joined=joined, lanes=lanes, dtype=dtype)

            with T.parallel(0, batch * (height // rows)) as r:
                band = _Band(
                    n=r // (height // rows),
                    number=r % (height // rows),
                    rows=rows,
                    width=width,
                    truths=truths,
                    words=words,
                    kept=T.alloc_buffer((rows * width * at_once,), dtype, scope="local"),
                    at_once=at_once,
                )
                if in_squares:
                    each(channels // lanes, lambda b: band.pack_square(b * lanes))
                    if channels % lanes:
                        band.pack_square(channels - lanes)
                else:
                    whole, left_over = divmod(group, word_bits)

                    def word(first, g, w, taken: int):
                        band.pack_word(first + w, g * group + w * word_bits, taken, most.together)

                    with T.serial(0, packing.groups) as g:
                        first = g * (packing.words_per_group // of_word)
                        each(whole, lambda w: word(first, g, w, word_bits))
                        if left_over:
                            word(first, g, whole, left_over)
    return builder.get()
