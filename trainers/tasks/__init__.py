"""One file per task: its data, loss, metrics and splits. A new one is a file here with a class under
`@tasks.register("name")` that has what `Task` asks for."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from trainers.registry import Registry


class Task(Protocol):
    """What a training is told of a task, which it need not know: images or text, classes or boxes.

    The inputs of a batch are what a network's forward takes: a tuple of its arguments, a dictionary of them
    by name, or one argument alone. Targets are whatever `loss` and `metrics` understand. The attributes are
    there before the data is opened, so that a network can be made first.

    Attributes:
        sizes: what `create_model` is given for a network that fits the task.
        example_inputs: a batch of one.
        metric: the one of the metrics that decides; more is better.
        licence: of the data; published: the address that has it.
    """

    sizes: Mapping[str, int]
    example_inputs: Any
    metric: str
    licence: str
    published: str

    def __init__(self, data: Path | None = None) -> None:
        """Open the data in the folder `data`, or where its package puts it. Raises DataError."""

    @property
    def splits(self) -> Mapping[str, int]:
        """Split -> its number of samples. There is one to train on, "train", and one to judge by, "test"."""

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None, limit: int | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """One pass over the first `limit` samples: (inputs, targets) of `batch_size`, fewer in the last.

        With a generator they are shuffled and augmented by it, without one they come in order, as they are.
        """

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Of one batch: a scalar with a gradient."""

    def metrics(self, results: Iterable[tuple[Any, Any]]) -> dict[str, float]:
        """By name, of the (outputs, targets) of all batches of a split, which are iterated over once."""


class DataError(ValueError):
    """A data set is missing or damaged; the message says what would be right."""


def accuracy(results: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share, 0 to 1, of samples whose largest output, of (N, classes), is at their target, int64 (N)."""
    right = total = 0
    for outputs, targets in results:
        right += int((outputs.argmax(1) == targets).sum())
        total += len(targets)
    return right / total


tasks: Registry[type[Task]] = Registry("task")
tasks.discover(__name__, __path__)
