"""One training, from fresh or given weights to a checkpoint, or from where it was stopped."""

import fcntl
import logging
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from trainers.algorithms import algorithms
from trainers.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from trainers.tasks import DataError, Task
from trainers.training.evaluate import judge_all
from trainers.training.loader import Order, split_samples
from trainers.training.module import BEST, Training
from trainers.training.nan import finite
from trainers.training.progress import Report, report
from trainers.training.recipe import Recipe
from trainers.training.state import State, load_state
from trainers.training.stop import SIGNALS, Stop


def fit(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    out: str | Path,
    metadata: Mapping[str, Any],
    epochs: int,
    batch_size: int,
    seed: int = 0,
    teacher: nn.Module | None = None,
    given: str = "",
    limit_train: int | None = None,
    threads: int = 1,
    workers: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
    precision: str = "32-true",
    save_every: float = 60.0,
) -> dict[str, float]:
    """Train `model` in place, write `out`/checkpoint.pt, and return the metrics on the judged splits;
    none in all but the first of several processes.

    Progress goes to standard error, a log to `out`/log.jsonl. Every minute or so, after each epoch and when
    it is asked to stop (SIGINT, SIGTERM), the training writes `out`/state.pt; a call with the same arguments
    goes on from there, and gives on a CPU with the same number of threads the very weights of a training
    that was not interrupted. One that is finished only judges again, or goes on if it is given more epochs.

    Args:
        epochs, batch_size: those of the recipe, or the task's.
        metadata: the keyword arguments of `save_checkpoint`; the metrics join its "extra" ("test_accuracy").
        teacher: the float network, for a recipe with distillation.
        given: the digest of the weights that the user had it start from, "" for none.
        limit_train: how many of the training samples are used, a random choice that is always the same.
        threads: of each process; workers: processes that read the data, for each.
        devices: processes, each with its own GPU or, on a CPU, its own threads; each takes other batches.
        accelerator, precision: of Lightning's Trainer, such as "cpu", "bf16-mixed".
        save_every: seconds between two states.

    Raises:
        ValueError: `out` cannot be written, holds the state of another training, or another process trains
            there; or the loss, a gradient or a weight became NaN or infinite: the message says where. What
            was written before stays.
        DataError: the task is for evaluation only, or too small for one batch.
        KeyboardInterrupt: it was asked to stop, and the state is written.
    """
    torch.set_num_threads(threads)
    out = Path(out)
    with _alone(out):  # which refuses a folder that cannot be written before the first epoch
        chosen, split, held_out = _samples(task, recipe, limit_train, teacher)
        order = Order(chosen, batch_size, epochs, seed, ranks=devices)
        if order.per_epoch == 0:
            raise DataError(
                f"{len(chosen)} samples are too few for {devices} batches of at least 2, as an epoch needs."
            )
        settings = msgspec.to_builtins(recipe) | {"batch_size": batch_size}
        del settings["epochs"], settings["float_epochs"]
        arguments = {
            "recipe": settings,
            "seed": seed,
            "limit_train": limit_train,
            "devices": devices,
            "precision": precision,
            "data": task.identity,
        }
        arguments |= {key: value for key, value in metadata.items() if key != "extra"}
        arguments["weights of --init"] = given or None
        if metadata["algorithm"] != "fp32" and (digest := algorithms[metadata["algorithm"]].file_digest):
            arguments["algorithm_file"] = digest
        for parameter in model.parameters():
            if parameter.dim() == 4:  # of a Conv2d: a fifth faster on a CPU; `contiguous` leaves one channel
                parameter.data = parameter.data.clone(memory_format=torch.channels_last)
        training = Training(
            model.train(),
            task,
            recipe,
            epochs=epochs,
            order=order,
            validation=(split, held_out),
            teacher=teacher,
            seed=seed,
            workers=workers,
            save_every=save_every,
            out=out,
            metadata=dict(metadata),
            arguments=arguments,
        )
        if state := load_state(out, arguments, epochs, order.per_epoch):
            _go_on(training, state)
        if not training.done and not _train(training, accelerator, devices, precision):
            return {}  # of several processes the first judges
        return _finish(training, settings | {"epochs": epochs}, workers)


def _samples(
    task: Task, recipe: Recipe, limit_train: int | None, teacher: nn.Module | None
) -> tuple[list[int], str, list[int]]:
    """As `split_samples`, where the recipe has what it needs."""
    if "train" not in task.splits:
        raise DataError("This task is for evaluation only: it has nothing to train on.")
    if recipe.distillation and teacher is None:
        raise ValueError(
            "The recipe distils a float network, but there is none: from_float or --init has it."
        )
    chosen, split, held_out = split_samples(task, limit_train, recipe.holdout)
    if (recipe.select == "best" or recipe.patience) and not held_out:
        raise ValueError(
            "The recipe needs a validation, and the task has no such split: set holdout=0.1, say."
        )
    return chosen, split, held_out


def _go_on(training: Training, state: State) -> None:
    training.restore(state)
    if state.epochs < training.epochs:
        report(
            f"The {state.epochs} epochs are done; the schedule goes on as that of {training.epochs} has it."
        )
    elif state.batches < training.batches:
        report(f"going on after {state.batches} of {training.batches} steps")


def _train(training: Training, accelerator: str, devices: int, precision: str) -> bool:
    """Whether this is the first of the processes. Raises KeyboardInterrupt where it was asked to stop."""
    recipe = training.recipe
    with _quiet(), _signals():
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,
            strategy=DDPStrategy(find_unused_parameters=recipe.stages == 2) if devices > 1 else "auto",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip or None,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Report(), Stop()],
        )
        training.order.rank = trainer.global_rank
        trainer.fit(training)
    if not training.done:
        raise KeyboardInterrupt
    return trainer.is_global_zero


def _finish(training: Training, settings: dict[str, Any], workers: int) -> dict[str, float]:
    """Judge the network and write the checkpoint."""
    task, metadata = training.task, training.metadata
    result = training.result
    if training.recipe.select == "best":
        result = load_checkpoint(training.out / BEST)[0]
    if not finite(result.state_dict()):
        raise ValueError("The weights have values that are not numbers after the last step.")
    metrics = judge_all(result, task, workers)
    name = f"{metadata['arch']} {metadata['algorithm']}"
    report(f"{name}: {task.metric} {metrics[task.metric]:.2%} after {training.seconds:.0f} s of training")
    extra = {**metadata.get("extra", {}), **{f"test_{name}": value for name, value in metrics.items()}}
    extra |= {"recipe": settings, "seed": training.seed, "data": task.identity}
    extra |= {"train_seconds": training.seconds}
    save_checkpoint(training.out / CHECKPOINT, result, **{**metadata, "extra": extra})
    return metrics


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One training at a time has a folder; the lock goes with the process.

    Raises:
        ValueError: another process trains there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"The folder {folder} cannot be written: {error.strerror or error}.") from error
    with (folder / ".lock").open("w") as file:
        if "LOCAL_RANK" not in os.environ:  # of several processes the first has the lock
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(f"Another process trains in {folder}; name another folder.") from error
        yield


@contextmanager
def _signals() -> Iterator[None]:
    """Whatever a training sets, leave the handlers of signals as they were."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what Lightning and PyTorch say of their own workings."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
