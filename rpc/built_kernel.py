"""A kernel that TVM has compiled, with what it is called on: boards and devices take the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class BuiltKernel:
    """file: its stem is the name of the function, so that two kernels can be linked into one program; a
    board with TVM loads a shared library, a device without it is linked with an object.
    arrays: all its tensors, the outputs last."""

    file: Path
    arrays: Sequence[np.ndarray]
