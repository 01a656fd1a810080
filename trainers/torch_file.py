"""Files of `torch.save`: written whole or not at all, and read without trust, so that only tensors and plain
values are unpickled, and nothing that is larger than its file."""

import io
import os
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

LONGEST = 60  # characters of what a file holds, in a message


class CheckpointError(ValueError):
    """A file is no checkpoint, or not one that can be used; the message says why."""


def save_atomically(path: str | Path, content: object) -> None:
    """`torch.save` that leaves either the whole new file at `path` or what was there before.

    A link stays, and what it leads to is replaced; a device or a pipe is written to. Raises OSError.
    """
    # As whole_file of bibench_tvm, which trainers, used without it, does not import.
    buffer = io.BytesIO()  # what torch.save raises while it writes to a file hides why
    torch.save(content, buffer)
    temporary = ""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        place = _replaceable(path)
        if place is None:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(buffer.getbuffer())
            return
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=place.name, suffix=".partial")
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # some file systems write the new name first
        os.chmod(temporary, 0o644)  # mkstemp lets only its owner read
        os.replace(temporary, place)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} cannot be written: {error.strerror or error}.") from error
        raise


def _replaceable(path: str | Path) -> Path | None:
    """The regular file that a path leads to, there or yet to come; None where it leads to something else, or
    to a file without a name, as /dev/fd/3 may."""
    place = Path(os.path.realpath(path))
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return place
    named = place.exists() and place.samefile(path)
    return place if named and stat.S_ISREG(found.st_mode) else None


def load_untrusted(path: str | Path) -> Any:
    """`torch.load` of tensors and plain values alone; every failure is a CheckpointError."""
    try:
        if zipfile.is_zipfile(path):
            _refuse_bomb(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except Exception as error:  # a damaged file raises whatever torch.load happens to hit
        raise CheckpointError(
            f"{path} is damaged, or is not a file of torch.save with nothing but tensors and plain values "
            f"in it ({type(error).__name__})."
        ) from error


def _refuse_bomb(path: str | Path) -> None:
    """`torch.save` compresses nothing, so that all entries together are no larger than the file."""
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        expanded = sum(entry.file_size for entry in archive.infolist())
    if expanded > size:
        raise CheckpointError(
            f"{path} has {size:,} bytes and would expand to {expanded:,}, which no file of torch.save does: "
            "it is damaged, or made to fill the memory."
        )


def shown(value: object) -> str:
    """A value of a file for a message: no more of it than fits there."""
    plain = isinstance(value, (str, int, float, type(None)))
    if isinstance(value, list) and len(value) <= 8 and all(type(item) is int for item in value):
        plain = True
    try:
        text = repr(value[:LONGEST] if isinstance(value, str) else value) if plain else ""
    except ValueError:  # a number of thousands of digits
        text = ""
    return text if text and len(text) <= 2 * LONGEST else f"a {type(value).__name__}"


def some(names: list[str]) -> str:
    """The first of names that a file may hold, for a message."""
    return ", ".join(name[:LONGEST] for name in names[:4]) + (
        f" and {len(names) - 4} more" if len(names) > 4 else ""
    )
