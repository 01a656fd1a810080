"""Judging: the metrics of a task for whatever computes outputs, a network or an artifact on a board."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from trainers.inputs import call, samples_of
from trainers.tasks import DataError, Task
from trainers.training.loader import evaluation_batches

BATCH = 250  # samples at most, of what is only computed forward
VALUES = 1 << 22  # in a batch at most, since a network holds many times as many


def batch_size_for(task: Task) -> int:
    """How many samples of the task are judged at a time."""
    leaves = torch.utils._pytree.tree_leaves(task.example_inputs)
    each = sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))
    return max(1, min(BATCH, VALUES // max(1, each)))


def judged_splits(task: Task) -> list[str]:
    """Those that say how good a network is: "test", or for want of it all but "train" and "validation"."""
    return ["test"] if "test" in task.splits else [s for s in task.splits if s not in ("train", "validation")]


def evaluate(
    forward: Callable[[Any], Any],
    task: Task,
    split: str,
    *,
    samples: Sequence[int] | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The metrics of what `forward` makes of the inputs of `samples`, of all of the split if None.

    `advance` is called after each batch.

    Raises:
        DataError: there is not one sample.
    """
    chosen = range(task.splits[split]) if samples is None else samples
    if not chosen:
        raise DataError(f"The split {split} has no samples.")
    metrics = task.metrics()
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: False  # each process that judges has seen all samples
    size = batch_size or batch_size_for(task)
    for inputs, targets in evaluation_batches(task, split, chosen, size, workers):
        if samples_of(inputs):  # none where all files of a batch are broken
            metrics.update(forward(inputs), targets)
        advance()
    # Of float32 no more digits than it has.
    return {name: float(f"{float(value):.7g}") for name, value in metrics.compute().items()}


def judge(
    model: nn.Module, task: Task, split: str, samples: Sequence[int] | None = None, workers: int = 0
) -> dict[str, float]:
    """The metrics of a network, which is left in the mode in which it was."""
    place = next(model.parameters()).device
    before = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return evaluate(
                lambda inputs: to(call(model, to(inputs, place)), "cpu"),
                task,
                split,
                samples=samples,
                workers=workers,
            )
    finally:
        model.train(before)


def to(values: Any, place: Any) -> Any:
    """The tensors of any structure on a device."""
    return torch.utils._pytree.tree_map(
        lambda leaf: leaf.to(place) if isinstance(leaf, torch.Tensor) else leaf, values
    )


def judge_all(model: nn.Module, task: Task, workers: int = 0) -> dict[str, float]:
    """The metrics over the judged splits; where there are several, their means, and each split's by itself
    as "split: metric"."""
    return mean_of({split: judge(model, task, split, workers=workers) for split in judged_splits(task)})


def mean_of(by_split: dict[str, dict[str, float]]) -> dict[str, float]:
    """One split's metrics as they are; of several the means, and each one's under "split: metric"."""
    if len(by_split) == 1:
        return next(iter(by_split.values()))
    names = next(iter(by_split.values()))
    means = {name: sum(found[name] for found in by_split.values()) / len(by_split) for name in names}
    each = {f"{split}: {name}": value for split, found in by_split.items() for name, value in found.items()}
    return means | each
