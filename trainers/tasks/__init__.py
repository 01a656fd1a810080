"""One file per task: its data, loss, metrics and splits. A new one is a file here with a class under
`@tasks.register("name")` that has what `Task` asks for. A stand-in's name begins with "standin_"."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from trainers.registry import Registry

HASHED = 256 << 20  # bytes; of larger sets the names and sizes of the files are the identity


class Task(Protocol):
    """What a training is told of a task, which it need not know: images or text, classes or boxes.

    The inputs of a batch are what a network's forward takes: a tuple of its arguments, a dictionary of them
    by name, or one argument alone. Targets are whatever `loss` and `metrics` understand. Large sets are read
    by `batch`, sample by sample; worker processes call it, each with a copy of the task.

    Attributes:
        sizes: what `create_model` is given for a network that fits the task; a network that has no such
            choice is not given its "stem".
        example_inputs: a batch of one.
        recipe: the name of the one that is taken unless the user names another; epochs: passes over the
            training split; batch_size: samples of a step; unless a recipe or the user says how many.
        metric: the one of the metrics that decides; more is better.
        licence: of the data; published: where it can be had.
        identity: a digest of the data, as of `identity_of`, with which a training goes on or refuses to.
        splits: split -> its number of samples. "train" is trained on, "test" judged by; "validation", if
            there is one, chooses the best weights. A task without "train" is there for evaluation only; one
            without "test" is judged by all its splits but "train", one by one.
    """

    sizes: Mapping[str, int | str]
    example_inputs: Any
    recipe: str
    epochs: int
    batch_size: int
    metric: str
    licence: str
    published: str

    def __init__(self, data: Path | None = None) -> None:
        """Open the data in the folder `data`, or where its package puts it. Raises DataError."""

    @property
    def identity(self) -> str: ...

    @property
    def splits(self) -> Mapping[str, int]: ...

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Any, Any]:
        """(inputs, targets) of the samples at `indices`; augmented by the generator, if one is given.

        A sample whose file turns out to be broken is left out, and named in a warning.
        """

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Of one batch: a scalar with a gradient. Not asked of a network that has a `loss` of its own."""

    def metrics(self) -> MetricCollection:
        """New ones, from 0 to 1 where they have bounds; `update(outputs, targets)` is called a batch."""


class DataError(ValueError):
    """A data set is missing or damaged; the message says what would be right."""


def data_folder(name: str) -> Path:
    """Where `install.sh data` puts the stand-in `name`: below $BIBENCH_DATA, or else in the user's cache."""
    return Path(os.environ.get("BIBENCH_DATA") or Path.home() / ".cache" / "bibench_tvm" / "data") / name


def read_text(path: Path, remedy: str) -> str:
    """What the file holds, which is UTF-8.

    Raises:
        DataError: it cannot be read, is not UTF-8, or is empty; `remedy` is a sentence that says where a
            missing one is to be had.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"There is no {path}. {remedy}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path} should be UTF-8 text, but its line {line} is not.") from error
    if not text.strip():
        raise DataError(f"{path} is empty.")
    return text


def identity_of(files: Iterable[Path], root: Path) -> str:
    """A hexadecimal digest of the files' names under `root`, their sizes and, up to 256 MiB, what they hold.

    Raises:
        DataError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    try:
        found = [(path.relative_to(root).as_posix(), path.stat().st_size, path) for path in sorted(files)]
        small = sum(size for _, size, _ in found) <= HASHED
        for name, size, path in found:
            digest.update(os.fsencode(f"{name} {size}\n"))
            if small:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


tasks: Registry[type[Task]] = Registry("task")
tasks.discover(__name__, __path__)
