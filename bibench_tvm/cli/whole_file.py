"""A file that is there whole or not at all, whenever its writer dies or the power fails.

Needs neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bibench_tvm.cli.errors import BibenchError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends; else what was there before stays.

    A link stays: what it leads to is replaced. What is no regular file, a device or a pipe, stays too, and
    gets at the end what the block wrote.

    Raises BibenchError. A writer that is killed leaves its part of a file, whose name begins with a dot.
    """
    scratch = ""
    try:
        place = _replaceable(path)
        if place is None:
            content = io.BytesIO()
            yield content
            # Without O_CREAT: should it be gone by now, no file comes in its place.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(content.getbuffer())
            return
        # So much of the name tells whose it is, and is never too long.
        handle, scratch = tempfile.mkstemp(prefix=f".{place.name[:40]}-", dir=place.parent)
        with os.fdopen(
            handle, "w+b"
        ) as file:  # to a file that is "wb" numpy writes past Python, and hides why
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file systems write the new name first
        os.chmod(scratch, 0o644)  # mkstemp keeps it to its owner
        os.replace(scratch, place)
    except BaseException as error:
        if scratch:
            Path(scratch).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise BibenchError(f"{path} cannot be written: {error.strerror or error}.") from error
        raise


def _replaceable(path: Path) -> Path | None:
    """The regular file that a path leads to, there or yet to come; None where it leads to something else, or
    to a file without a name, as /dev/fd/3 may. Raises OSError."""
    place = Path(os.path.realpath(path))
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return place
    named = place.exists() and place.samefile(path)
    return place if named and stat.S_ISREG(found.st_mode) else None


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
