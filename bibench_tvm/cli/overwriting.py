"""Outputs that would take the place of what the same command reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bibench_tvm.cli.errors import UsageError


def refuse_overwriting(written: Iterable[Path], read: Iterable[Path]) -> None:
    """Raise UsageError where a file that is to be written is one of those that are read, by any of its names.

    A device or a pipe may be both."""
    inputs = [path for path in read if path.is_file()]
    for output in written:
        for path in inputs:
            if os.path.realpath(output) == os.path.realpath(path) or (
                output.is_file() and output.samefile(path)
            ):
                raise UsageError(f"{output} would overwrite {path}, which is read: name another file.")
