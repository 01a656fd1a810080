"""Vectors of a buffer in TIR, and loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T


def vector(buffer: tirx.Buffer, index: list[Any], lanes: int) -> Any:
    """`lanes` elements along the last axis from index on; the element itself for one."""
    *outer, last = index
    return buffer[(*outer, T.ramp(last, 1, lanes) if lanes > 1 else last)]


def spread(value: Any, lanes: int) -> Any:
    return T.broadcast(value, lanes) if lanes > 1 else value


def cast(value: Any, dtype: str, lanes: int) -> Any:
    """dtype: of one element."""
    return value.astype(dtype if lanes == 1 else f"{dtype}x{lanes}")


def load(buffer: tirx.Buffer, start: Any, lanes: int) -> Any:
    return vector(buffer, [start], lanes)


def store(buffer: tirx.Buffer, start: Any, lanes: int, value: Any) -> None:
    T.buffer_store(buffer, value, [T.ramp(start, 1, lanes) if lanes > 1 else start])


def copy(source: tirx.Buffer, start: Any, target: tirx.Buffer, at: Any, count: int, lanes: int) -> None:
    """`count` elements, as a rule `lanes` at a time."""

    def piece(done: Any, size: int) -> None:
        store(target, at + done, size, load(source, start + done, size))

    each(count // lanes, lambda i: piece(i * lanes, lanes))
    for done, size in whole_vectors(count % lanes):
        piece(count - count % lanes + done, size)


def flat(buffer: tirx.Buffer, dtype: str | None = None) -> tirx.Buffer:
    """The same memory as a vector, read as another type where one is given."""
    held, read = (np.dtype(str(d)).itemsize for d in (buffer.dtype, dtype or buffer.dtype))
    extent = int(np.prod([int(e) for e in buffer.shape])) * held // read
    return T.decl_buffer((extent,), dtype or str(buffer.dtype), data=buffer.data)


def in_pieces(extent: int, size: int, body: Callable[[Any, int], None]) -> None:
    """body(first, count) for `size` elements at a time, and for those that are left over."""
    whole, rest = divmod(extent, size)
    each(whole, lambda i: body(i * size, size))
    if rest:
        body(whole * size, rest)


def each(extent: int, body: Callable[[Any], None]) -> None:
    if extent == 1:
        body(0)
    elif extent:
        with T.serial(0, extent) as i:
            body(i)


def whole_vectors(extent: int, most: int | None = None) -> list[tuple[int, int]]:
    """(first, count) of the vectors that hold so many elements: of `most`, then powers of 2, since LLVM takes
    vectors of other lengths apart where a loop adds to them."""
    found, done = [], 0
    while done < extent:
        left = extent - done
        size = most if most is not None and most <= left else 1 << left.bit_length() - 1
        found.append((done, size))
        done += size
    return found
