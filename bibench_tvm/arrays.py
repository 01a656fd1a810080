"""Arrays from .npy files that somebody gave."""

from __future__ import annotations

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
