"""Judging an artifact on a task: the loader and the metrics that judged the network it was compiled from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.artifact.manifest import Tensor as TensorSpec
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.detection.detector import Detector
from trainers.checkpoint import load_checkpoint
from trainers.inputs import call, describe, example_inputs_of
from trainers.tasks import DataError, Task, tasks
from trainers.training.evaluate import batch_size_for, evaluate, judged_splits, mean_of

BATCH = 64  # samples at most; a board gets so many at a time


def open_task(name: str, data: Path | None) -> Task:
    """The task with its data. Raises BibenchError where these are missing or damaged."""
    try:
        return tasks[name](data)
    except DataError as error:
        raise BibenchError(str(error)) from error


def judge(
    forward: Callable[[Any], Any], task: Task, about: str, advance: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The metrics over the judged splits of what `forward` makes of inputs; `advance` after each batch.

    Raises:
        UsageError: the outputs are not those of the task; `about` says of what, and of which.
    """
    size = _batch_size(task)
    try:
        with torch.inference_mode():
            return mean_of(
                {
                    split: evaluate(forward, task, split, batch_size=size, advance=advance)
                    for split in judged_splits(task)
                }
            )
    except (RuntimeError, IndexError, ValueError) as error:
        if isinstance(error, BibenchError):
            raise
        raise UsageError(f"{about}; --task names the task that it is for.") from error


def batches_of(task: Task) -> int:
    """How often `judge` calls `advance`."""
    return sum(-(-task.splits[split] // _batch_size(task)) for split in judged_splits(task))


def _batch_size(task: Task) -> int:
    return min(BATCH, batch_size_for(task))


def forward_of_checkpoint(path: Path, task: Task, name: str) -> Callable[[Any], Any]:
    """Raises UsageError where the network takes other inputs than those of the task called `name`."""
    model, metadata = load_checkpoint(path)
    taken, given = describe(example_inputs_of(model)), describe(task.example_inputs)
    if taken != given:
        trained = metadata["extra"].get("task")
        hint = f" It was trained on {trained}." if trained else ""
        raise UsageError(f"{path} is for inputs {taken}, but {name} has {given}.{hint}")
    return lambda inputs: call(model, inputs)


def forward_of_artifact(artifact: Artifact | Detector, board: Any = None) -> Callable[[Any], Any]:
    """From the inputs of a batch, whatever its size, to outputs, computed here or on a board.

    Raises:
        UsageError: while it runs, at inputs that are not the artifact's.
    """
    record = artifact.first.record if isinstance(artifact, Detector) else artifact.record
    specs = record.inputs
    size = specs[0].shape[0] if specs[0].shape else 1
    run = artifact.run if board is None else artifact.sent_to(board)

    def forward(inputs: Any) -> Any:
        arrays = [_fill(x, size).numpy() for x in _in_order(inputs, specs)]
        found = run(*arrays)
        count = len(_in_order(inputs, specs)[0])
        several = isinstance(found, tuple)
        outputs = tuple(torch.from_numpy(x)[:count] for x in (found if several else (found,)))
        return outputs if several else outputs[0]

    return forward


def _in_order(inputs: Any, specs: Sequence[TensorSpec]) -> list[Tensor]:
    if isinstance(inputs, dict):
        names = [spec.name for spec in specs]
        if sorted(names) != sorted(inputs):
            raise UsageError(
                f"The artifact's inputs are {', '.join(names)}, but the task has {', '.join(inputs)}."
            )
        return [inputs[name] for name in names]
    values = list(inputs) if isinstance(inputs, tuple) else [inputs]
    if len(values) != len(specs):
        raise UsageError(f"The artifact has {len(specs)} inputs, but the task {len(values)}.")
    return values


def _fill(x: Tensor, size: int) -> Tensor:
    """Repeat the last sample until there is a multiple of the artifact's batch."""
    lacking = -len(x) % size
    return torch.cat([x, x[-1:].expand(lacking, *x.shape[1:])]) if lacking else x
