"""How a kernel writes its outputs: epilogue, then numbers as they are and truths as packed bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.parts.bits import Packing
from schedules.parts.emit import each, flat, spread
from schedules.parts.epilogue import Epilogue
from schedules.parts.extremes import Extremes
from schedules.parts.planes import Planes

SCHEDULED = "bibench.is_scheduled"
# Buffers do not overlap; no other schedule may touch a kernel, nor TVM's fusion take it apart (8: opaque).
KERNEL_ATTRIBUTES = {"tirx.noalias": True, SCHEDULED: True, "op_pattern": 8}
# Bits that are a vector of their own, where a word is not filled.
WHOLE_PARTS = (8, 16)
# How many bytes a kernel reads and writes, where its parameters hold more.
TOUCHED = "bibench.touched"
# The names of an operand and of the output that may take its place in memory, where a kernel has such a pair.
REPLACED, REPLACING = "bibench.replaced", "bibench.replacing"


def operand_arguments(epilogue: Epilogue, named: str = "operand") -> list[tirx.Buffer]:
    """The parameters of a kernel for what its epilogue reads."""
    return [T.arg(f"{named}{i}", T.buffer(*spec)) for i, spec in enumerate(epilogue.operands)]


def output_arguments(epilogue: Epilogue) -> list[tirx.Buffer]:
    """The parameters of a kernel for what its epilogue writes."""
    return [T.arg(f"output{i}", T.buffer(o.shape, o.dtype)) for i, o in enumerate(epilogue.outputs)]


def replacement(epilogue: Epilogue, channels: int) -> dict[str, str]:
    """The attributes of a kernel that writes each number once, with a `Writer`, and has so many channels in a
    group: the operand and the output for which one place in memory is enough."""
    rests = {channels % o.packing.per_word for o in epilogue.outputs if o.packing}
    if not rests <= {0, *WHOLE_PARTS}:
        return {}  # the epilogue of other parts of a word is emitted twice
    for output in range(len(epilogue.outputs)):
        operand = epilogue.replaceable(output)
        if operand is not None:
            return {REPLACED: f"operand{operand}", REPLACING: f"output{output}"}
    return {}


class Writer:
    """Emits an epilogue at one pixel for channels that lie together, in vectors.

    extents: batch, height, width of the outputs, without halo.
    kept: of the band that is being computed, where an output is not written pixel by pixel; set by the
    kernel."""

    WIDEST = 32

    def __init__(
        self,
        epilogue: Epilogue,
        outputs: list[tirx.Buffer],
        operands: list[tirx.Buffer],
        extents: tuple[int, int, int],
    ):
        self.epilogue, self.outputs, self.operands, self.extents = epilogue, outputs, operands, extents
        self.kept: Planes | Extremes | None = None
        pairs = zip(outputs, epilogue.outputs, strict=True)
        self.packed = [(flat(buffer), o.packing) for buffer, o in pairs if o.packing is not None]

    def clear_halos(self, alone: bool = False) -> None:
        """alone: but not what they stand around, which where words are many takes long to write twice."""
        for words, packing in self.packed:
            if any(packing.halo) and alone:
                self._clear_around(words, packing)
            elif any(packing.halo):
                _clear(words, packing, 0, words.shape[0])

    def _clear_around(self, words: tirx.Buffer, packing: Packing) -> None:
        """Stretch by stretch: the right end of a row and the left one of the next are neighbours."""
        images, height, _ = self.extents
        top, left, bottom, right = packing.halo
        _, tall, wide, pitch = packing.shape(*self.extents)
        row = wide * pitch

        def image(n: Any) -> None:
            def end_of(y: Any) -> Any:
                return (n * tall + top + y + 1) * row - right * pitch

            _clear(words, packing, n * tall * row, top * row + left * pitch)
            each(height - 1, lambda y: _clear(words, packing, end_of(y), (right + left) * pitch))
            _clear(words, packing, end_of(height - 1), right * pitch + bottom * row)

        each(images, image)

    def write(self, n, y, x, start, valid: int, total: Callable[[Any, Any, int], Any]) -> None:
        """Channels start to start + valid; `total(lane, channel, lanes)` gives the sums of `lanes` of them.

        Where bits are packed, start is at the beginning of a word.
        """
        word = max((packing.per_word for _, packing in self.packed), default=1)
        done = 0
        for size in (self.WIDEST, self.WIDEST // 2):
            if size % word == 0:
                count = (valid - done) // size

                def piece(p, size=size, done=done):
                    self._piece(n, y, x, start, done + p * size, size, total)

                each(count, piece)
                done += count * size
        step = word if word > 1 else self.WIDEST
        for first in range(done, valid, step):
            self._piece(n, y, x, start, first, min(valid - first, step), total)

    def _piece(self, n, y, x, start, first, lanes: int, total) -> None:
        channel = start + first
        values = self.epilogue.emit(total(first, channel, lanes), [n, y, x, channel], self.operands, lanes)
        packed = iter(self.packed)
        for i, (value, buffer, output) in enumerate(
            zip(values, self.outputs, self.epilogue.outputs, strict=True)
        ):
            if output.form == "planar" or output.extreme:
                assert self.kept is not None
                self.kept.keep(i, y, x, first, lanes, value)
                continue
            if output.packing is None:
                place = (x, y) if output.form == "swapped" else (y, x)
                index = [n, *place, channel if lanes == 1 else T.ramp(channel, 1, lanes)]
                T.buffer_store(buffer, value, index[4 - len(buffer.shape) :])
                continue
            words, packing = next(packed)
            top, left, _, _ = packing.halo
            _, height, width, pitch = packing.shape(*self.extents)
            at = ((n * height + y + top) * width + x + left) * pitch + channel // packing.per_word
            if lanes % packing.per_word == 0:
                count = lanes // packing.per_word
                kind = packing.dtype if count == 1 else f"{packing.dtype}x{count}"
                if packing.quantizer:
                    whole = packing.quantizer.emit(value, lanes)
                elif packing.byte_a_channel:
                    one, nothing = (spread(tirx.const(bit, "uint8"), lanes) for bit in (1, 0))
                    whole = tirx.Select(value, one, nothing)
                else:
                    whole = bits_of(value, kind)
                T.buffer_store(words, whole, [at if count == 1 else T.ramp(at, 1, count)])
            else:
                part = self._part_of_word(packing, n, y, x, start, first, lanes, total, value)
                T.buffer_store(words, part, [at])

    def _part_of_word(self, packing: Packing, n, y, x, start, first, lanes: int, total, value) -> Any:
        """The last word, of which only `lanes` bits are taken: the others are 0."""
        if lanes in WHOLE_PARTS:
            return bits_of(value, f"uint{lanes}").astype(packing.dtype)
        which = next(i for i, o in enumerate(self.epilogue.outputs) if o.packing is packing)

        def truth(done: int, size: int) -> Any:
            channel = start + first + done
            sums = total(first + done, channel, size)
            return self.epilogue.emit(sums, [n, y, x, channel], self.operands, size)[which]

        return first_bits(truth, lanes, packing.dtype)


def first_bits(truth: Callable[[int, int], Any], count: int, dtype: str) -> Any:
    """A word of so many bits, from the lowest on; the others are 0. truth(done, size): `size` truths from
    this one on."""
    word, done = tirx.const(0, dtype), 0
    for size in (32, 16, 8, 1):
        while done + size <= count:
            if size > 1:
                bits = bits_of(truth(done, size), f"uint{size}").astype(dtype)
                bits = bits << done if done else bits
            else:
                bits = tirx.Select(truth(done, 1), *(tirx.const(b, dtype) for b in (1 << done, 0)))
            word, done = word | bits if done else bits, done + size
    return word


def _clear(words: tirx.Buffer, packing: Packing, first: Any, count: Any) -> None:
    nothing = tirx.const(packing.nothing, packing.dtype)
    if int(count):
        with T.serial(0, count) as j:
            T.buffer_store(words, nothing, [first + j])


def bits_of(truth: Any, dtype: str) -> Any:
    """A vector of truths as the bits of integers, lane i as bit i; LLVM has an instruction or a few for that.

    `T.reinterpret` counts a truth as eight bits and refuses; LLVM has it as one.
    """
    return tirx.call_intrin(dtype, "tirx.reinterpret", truth)
