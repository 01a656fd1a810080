"""Arrays for a network: from .npy and .npz files that somebody gave, or random."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bibench_tvm.errors import UsageError


def read_array(path: Path) -> np.ndarray:
    """Raises UsageError where this is not a whole .npy file of numbers."""
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, EOFError, MemoryError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"{path} is not a whole .npy file of numbers: {reason}.") from error


def read_samples(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a .npy file, or those of a .npz file by their names. Raises UsageError."""
    if not zipfile.is_zipfile(path):
        return read_array(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, MemoryError, OSError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UsageError(f"{path} is not a whole .npz file of numbers: {reason}.") from error


def random_array(generator: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Normal numbers where the dtype is floating, else 0 and 1, which any index or mask may be."""
    floats = "float" in dtype
    return (generator.standard_normal(shape) if floats else generator.integers(0, 2, shape)).astype(dtype)
