"""A file that is there whole or not at all, whenever its writer dies or the power fails.

Needs neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, which takes its place when the block ends; else what was there before stays.

    Raises OSError. A writer that is killed leaves its part of a file, whose name begins with a dot.
    """
    # So much of the name tells whose it is, and is never too long.
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name[:40]}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file systems write the new name first
        os.chmod(scratch, 0o644)  # mkstemp keeps it to its owner
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Have what was written there, a file or a folder's names, on the disk before what is written next."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some systems do not do this for folders
            raise
    finally:
        os.close(handle)
