"""Batches of a task, in an order that is a function of the seed and the position alone.

Which samples the batch has that is the b-th of epoch e, and how they are augmented, follows from (seed, e, b)
and not from what was drawn before, nor from the number of worker processes. So a training goes on anywhere by
asking for the batches from there on."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from trainers.tasks import Task


class BatchKey(NamedTuple):
    """Which batch: the samples, and the seed of what is random about them; None for none."""

    split: str
    indices: Sequence[int]
    seed: int | None


class Batches(Dataset):
    """BatchKey -> (inputs, targets)."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, key: BatchKey) -> tuple[Any, Any]:
        generator = None if key.seed is None else torch.Generator().manual_seed(key.seed)
        return self.task.batch(key.split, key.indices, generator)


class Order(Sampler[BatchKey]):
    """The training batches `first`, `first` + 1, ... of all epochs, for one of several processes.

    `samples` are those to train on. A last batch of one sample is left out: batch normalisation of (1, C)
    has no variance.
    """

    def __init__(
        self, samples: Sequence[int], batch_size: int, epochs: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self.samples, self.batch_size, self.epochs, self.seed = np.asarray(samples), batch_size, epochs, seed
        self.rank, self.ranks = rank, ranks
        self.first = 0
        whole, rest = divmod(len(samples), batch_size)
        self.per_epoch = (whole + (rest > 1)) // ranks  # of each process

    def __len__(self) -> int:
        return self.per_epoch * self.epochs - self.first

    def __iter__(self) -> Iterator[BatchKey]:
        order, epoch = self.samples, -1
        for position in range(self.first, self.per_epoch * self.epochs):
            if position // self.per_epoch != epoch:
                epoch = position // self.per_epoch
                order = np.random.default_rng((self.seed, epoch)).permutation(self.samples)
            batch = position % self.per_epoch * self.ranks + self.rank
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield BatchKey("train", chosen.tolist(), seed_of(self.seed, epoch, batch))


def seed_of(*numbers: int) -> int:
    """One of 64 bits out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def training_batches(task: Task, order: Order, workers: int) -> DataLoader:
    return _load(task, order, workers)


def evaluation_batches(
    task: Task, split: str, samples: Sequence[int], batch_size: int, workers: int = 0
) -> DataLoader:
    """The samples of a split in their order, as they are."""
    keys = [
        BatchKey(split, samples[start : start + batch_size], None)
        for start in range(0, len(samples), batch_size)
    ]
    return _load(task, keys, workers)


def _load(task: Task, keys: Any, workers: int) -> DataLoader:
    return DataLoader(
        Batches(task), batch_size=None, sampler=keys, num_workers=workers, worker_init_fn=_leave_interrupts
    )


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the training ends its workers after its last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def split_samples(task: Task, limit: int | None, holdout: float) -> tuple[list[int], str, list[int]]:
    """Of the training split those to train on, and the split and samples to validate with; none if there are
    none.

    `limit` of the samples, all if None, are chosen at random, the same for every seed, and so are those that
    are held out where the task has no validation split.
    """
    count = task.splits["train"]
    chosen = np.random.default_rng(0).permutation(count)[: limit or count]
    if "validation" in task.splits:
        return sorted(chosen.tolist()), "validation", list(range(task.splits["validation"]))
    out = round(holdout * len(chosen))
    return sorted(chosen[out:].tolist()), "train", sorted(chosen[:out].tolist())
