"""How a kernel writes its outputs: epilogue, then numbers as they are and truths as packed bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.epilogue import Epilogue

SCHEDULED = "bibench.is_scheduled"  # attribute of a kernel that no other schedule may touch


def load(buffer: tirx.Buffer, start: Any, lanes: int) -> Any:
    return buffer[T.ramp(start, 1, lanes)]


def store(buffer: tirx.Buffer, start: Any, lanes: int, value: Any) -> None:
    T.buffer_store(buffer, value, [T.ramp(start, 1, lanes)])


def flat(buffer: tirx.Buffer, dtype: str | None = None) -> tirx.Buffer:
    extent = int(np.prod([int(e) for e in buffer.shape]))
    return T.decl_buffer((extent,), dtype or buffer.dtype, data=buffer.data)


def each(extent: int, body: Callable[[Any], None]) -> None:
    if extent == 1:
        body(0)
    elif extent:
        with T.serial(0, extent) as i:
            body(i)


class Writer:
    """Emits an epilogue at one pixel for channels that lie together, in vectors of 16.

    extents: batch, height, width of the outputs, without halo."""

    VECTOR = 16

    def __init__(
        self,
        epilogue: Epilogue,
        outputs: list[tirx.Buffer],
        operands: list[tirx.Buffer],
        extents: tuple[int, int, int],
    ):
        self.epilogue, self.outputs, self.operands, self.extents = epilogue, outputs, operands, extents
        self.flat = {
            i: flat(buffer) for i, buffer in enumerate(outputs) if epilogue.outputs[i].packing is not None
        }

    def clear_halos(self) -> None:
        for i, flat in self.flat.items():
            packing = self.epilogue.outputs[i].packing
            if packing and any(packing.halo):
                with T.serial(0, flat.shape[0]) as j:
                    T.buffer_store(flat, tirx.const(0, packing.dtype), [j])

    def write(self, n, y, x, start, valid: int, total: Callable[[Any, Any], Any]) -> None:
        flags = {i: T.alloc_buffer((-(-valid // 32) * 32,), "uint8", scope="local") for i in self.flat}
        for buffer in flags.values():
            extent = int(buffer.shape[0])
            if valid != extent:  # what fills up the last word must be 0
                store(buffer, 0, extent, T.broadcast(tirx.const(0, "uint8"), extent))
        whole, rest = divmod(valid, self.VECTOR)
        each(whole, lambda p: self._vector(n, y, x, start, p * self.VECTOR, self.VECTOR, total, flags))
        if rest:
            self._vector(n, y, x, start, whole * self.VECTOR, rest, total, flags)
        for i, flat in self.flat.items():
            self._words(i, flat, flags[i], n, y, x, start, valid)

    def _vector(self, n, y, x, start, first, count, total, flags) -> None:
        with T.vectorized(0, count) as lane:
            channel = start + first + lane
            values = self.epilogue.emit(total(first + lane, channel), [n, y, x, channel], self.operands)
            for i, value in enumerate(values):
                if i in flags:
                    bit = tirx.Select(value, tirx.const(1, "uint8"), tirx.const(0, "uint8"))
                    T.buffer_store(flags[i], bit, [first + lane])
                else:
                    index = [n, y, x, channel]
                    T.buffer_store(self.outputs[i], value, index[4 - len(self.outputs[i].shape) :])

    def _words(self, i: int, flat: tirx.Buffer, flags: tirx.Buffer, n, y, x, start, valid: int) -> None:
        packing = self.epilogue.outputs[i].packing
        assert packing is not None
        top, left, _, _ = packing.halo
        _, height, width, words = packing.shape(*self.extents)
        first = ((n * height + y + top) * width + x + left) * words + start // packing.word

        def word(w):
            value = None
            for byte in range(packing.word // 8):
                part = gather_bits(flags, w * packing.word + byte * 8).astype(packing.dtype)
                part = part << tirx.const(8 * byte, packing.dtype) if byte else part
                value = part if value is None else value | part
            T.buffer_store(flat, value, [first + w])

        each(-(-valid // packing.word), word)


def gather_bits(flags: tirx.Buffer, start: Any) -> Any:
    """Eight bytes of 0 or 1 -> one uint64 whose low byte has byte i of them as bit i.

    The product with 2**56 + 2**49 + ... + 2**7 moves bit 8 i to 56 + i; no two terms meet below, so nothing
    carries.
    """
    eight = T.reinterpret("uint64", flags[T.ramp(start, 1, 8)])
    return (eight * tirx.const(0x0102040810204080, "uint64")) >> tirx.const(56, "uint64")
