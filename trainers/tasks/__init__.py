"""One file per task: its data set and its transforms. A new one is a file here with a class under
`@tasks.register("name")` that has what `Task` asks for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from torch import Tensor

from trainers.registry import Registry


class Task(Protocol):
    """A classification task. Batches are (float32 (N, *input_shape), int64 (N))."""

    input_shape: tuple[int, ...]
    num_classes: int

    def __init__(self, data: Path | None = None) -> None:
        """Open the data set in the folder `data`, or where its package puts it."""

    def train_size(self) -> int:
        """The number of training samples."""

    def train_batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch over the first `limit` samples, shuffled and augmented with torch's global generator."""

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The test set in its own order."""


class DataError(ValueError):
    """A data set is missing or damaged; the message says what would be right."""


tasks: Registry[type[Task]] = Registry("task")
tasks.discover(__name__, __path__)
