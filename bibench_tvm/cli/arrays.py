"""Arrays for a network: from .npy and .npz files that somebody gave, or random."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bibench_tvm.cli.errors import UsageError

_ROOM = 1 << 28  # bytes that a .npz may expand to whatever its own size
_EXPANSION = 20  # times its size


class _Unfit(ValueError):
    """Why a file cannot be taken, as the end of a sentence: numpy's own words are for who called it."""


def read_array(path: Path) -> np.ndarray:
    """Raises UsageError where this is not a whole .npy file of numbers."""

    def read() -> np.ndarray:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                raise _Unfit("it is a .npz archive, of which numpy.load gives the arrays by their names.")
            file.seek(0)
            return _numbers(np.lib.format.read_array(file, allow_pickle=False))

    return _whole(path, ".npy", read)


def read_samples(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a .npy file, or those of a .npz file by their names. Raises UsageError."""
    if not zipfile.is_zipfile(path):
        return read_array(path)

    def read() -> dict[str, np.ndarray]:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
        if expanded > _ROOM + _EXPANSION * path.stat().st_size:
            raise _Unfit(f"its arrays are of {expanded:,} bytes, too many for a file of its size.")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _numbers(arrays[name]) for name in arrays.files}

    return _whole(path, ".npz", read)


def _whole(path: Path, kind: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged header raises whatever numpy's parser happens to hit
        reason = (
            error if isinstance(error, _Unfit) else "it is damaged, of another kind, or of Python objects."
        )
        raise UsageError(f"{path} is not a whole {kind} file of numbers: {reason}") from error


def _numbers(value: Any) -> np.ndarray:
    """An entry of a .npz that is no array comes as bytes."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        raise _Unfit(f"it holds {getattr(value, 'dtype', 'bytes')}.")
    return value


def random_array(generator: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Normal numbers where the dtype is floating, else 0 and 1, which any index or mask may be."""
    floats = "float" in dtype
    return (generator.standard_normal(shape) if floats else generator.integers(0, 2, shape)).astype(dtype)
