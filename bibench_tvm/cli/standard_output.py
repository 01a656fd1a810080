"""Standard output, which may be full, closed, or read by nobody any more."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO, cast


class OutputLost(Exception):
    """Standard output cannot be written; the message is a sentence. unread: nobody reads it any more, as
    after `head`, and so there is nobody to tell."""

    def __init__(self, reason: OSError):
        super().__init__(f"Standard output cannot be written: {reason.strerror or reason}.")
        self.unread = reason.errno == errno.EPIPE


def watched() -> TextIO:
    """Standard output as it is, but that it raises OutputLost, once: what comes later goes nowhere."""
    outside = sys.stdout
    if outside is None:  # closed by who started this; now it is there, and takes nothing
        handle = os.open(os.devnull, os.O_RDONLY)
        return io.TextIOWrapper(io.BufferedWriter(_Raw(handle, "w", closefd=False)))
    if not isinstance(outside, io.TextIOWrapper):  # of a program that has this as a part
        return outside
    outside.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Raw(outside.fileno(), "w", closefd=False)),
        encoding=outside.encoding,
        errors=outside.errors,
        line_buffering=outside.line_buffering,
        write_through=outside.write_through,
    )


class _Raw(io.FileIO):
    lost = False

    def write(self, data: Any) -> int:
        if self.lost:
            return memoryview(data).nbytes
        try:
            return cast(int, super().write(data))  # of a pipe that does not block, None, as of any raw file
        except OSError as error:
            self.lost = True
            raise OutputLost(error) from error
