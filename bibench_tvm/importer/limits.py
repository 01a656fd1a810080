"""How much a file may grow as it is read: a few bytes can name terabytes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import Any

from bibench_tvm.importer.imported import ImportFailed

_ROOM = 1 << 28  # bytes that any file may grow to, whatever its own size
_GROWTH = 16  # times its size: binarized weights, for one, are folded in a few steps of the weights' size
LARGEST_TENSOR = 1 << 32  # bytes


def is_too_much(grown: int, size: int) -> bool:
    """Whether `grown` bytes are more than what a file of `size` bytes may become."""
    return grown > _ROOM + _GROWTH * size


def refuse_bombs(archive: zipfile.ZipFile, size: int, path: Any) -> None:
    """Raise ImportFailed where the entries of an archive of `size` bytes are larger than PyTorch writes them.

    It writes them uncompressed, one after another, so that all of them are no larger than the archive.
    """
    grown = sum(entry.file_size for entry in archive.infolist())
    if is_too_much(grown, size):
        raise ImportFailed(
            f"{path} is an archive of {size:,} bytes that would expand to {grown:,}, which no file of "
            "PyTorch does: it is damaged, or made to fill the memory."
        )


def refuse_growth(what: str, grown: int, size: int, path: Any) -> None:
    """Raise ImportFailed where something in a file of `size` bytes is of too many bytes for it."""
    if is_too_much(grown, size):
        raise ImportFailed(
            f"{what} of {path} would take {grown:,} bytes, and the file has {size:,}: it is damaged, or made "
            "to fill the memory."
        )


def refuse_large(what: str, shape: Iterable[int], path: Any) -> None:
    """Raise ImportFailed for a tensor that no board could hold."""
    count = 4
    for extent in shape:
        count *= max(1, extent)
    if count > LARGEST_TENSOR:
        raise ImportFailed(
            f"{what} of {path} has the shape {'x'.join(map(str, shape))}: more than "
            f"{LARGEST_TENSOR >> 30} GiB."
        )
