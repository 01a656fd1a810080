"""How the files of a large set are read, one by one as they are asked for: the broken ones are left out."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Broken(Exception):
    """What a file lacks, to follow "because"."""


def read_each(paths: Sequence[Path], read: Callable[[int], T]) -> tuple[list[T], list[int]]:
    """What `read` makes of the files, given their places in `paths`, and the places of those it could read.

    The others are named in a warning with the reason that `read` raised: `Broken`, or whatever a damaged file
    can lead to.
    """
    found, places = [], []
    for place, path in enumerate(paths):
        try:
            found.append(read(place))
            places.append(place)
        except Exception as error:
            warnings.warn(f"{path} is left out, because {_reason(error)}.", stacklevel=2)
    return found, places


def read_numbers(lines: Sequence[bytes], kind: type[np.generic]) -> np.ndarray | None:
    """The table in lines with numbers between spaces; None where they are none, or not as many in each."""
    try:
        return np.loadtxt(lines, kind, comments=None, encoding="latin-1", ndmin=2) if lines else None
    except (ValueError, OverflowError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, Broken):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}"
    return "it is damaged"
