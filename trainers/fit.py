"""Training: Adam with a cosine schedule unless told otherwise (section 4 of the paper), resumable from the
last whole epoch.

It knows neither images nor classes: what a batch, the loss and the metrics are, the task says. A plain loop:
what a framework would add to it here is more than the loop is.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainers.checkpoint import CheckpointError, load_untrusted, save_atomically, save_checkpoint
from trainers.convert import set_progress
from trainers.inputs import call
from trainers.tasks import Task

CHECKPOINT = "checkpoint.pt"
STATE = "state.pt"  # the training after its last whole epoch, which a later call goes on from
REPORT_EVERY = 10.0  # seconds


def cosine(progress: float) -> float:
    """The share of the learning rate at `progress`, 0 at the first step and 1 after the last: from 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


def fit(
    model: nn.Module,
    task: Task,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    threads: int,
    limit_train: int | None = None,
    out: str | Path,
    metadata: Mapping[str, Any],
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    schedule: Callable[[float], float] = cosine,
) -> dict[str, float]:
    """Train `model` in place, write `out`/checkpoint.pt, and return the metrics on the whole test split.

    Progress goes to standard error. After each epoch the state of the training is written to
    `out`/state.pt; a call with the same arguments goes on from there with the very numbers of a training
    that was not interrupted.

    Args:
        limit_train: how many of the training samples are used, all if left out.
        metadata: the keyword arguments of `save_checkpoint`; the metrics join its "extra" ("test_accuracy").
        optimizer: makes one of the parameters and the learning rate.
        schedule: the share of the learning rate that a step has, from the progress at its beginning.

    Raises:
        ValueError: `out` cannot be written, or holds the state of a training with other arguments; or the
            loss or a weight became NaN or infinite. What was written after the last epoch stays.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    out = Path(out)
    _refuse_unwritable(out)  # before the first epoch rather than after it
    arguments = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "limit_train": limit_train,
        "optimizer": getattr(optimizer, "__name__", str(optimizer)),
        "schedule": getattr(schedule, "__name__", str(schedule)),
    }
    arguments |= {key: value for key, value in metadata.items() if key != "extra"}
    samples = min(limit_train or task.splits["train"], task.splits["train"])
    steps_per_epoch = math.ceil(samples / batch_size)
    steps = epochs * steps_per_epoch
    for parameter in model.parameters():
        if parameter.dim() == 4:  # of a Conv2d: a fifth faster on a CPU; `contiguous` leaves a single channel
            parameter.data = parameter.data.clone(memory_format=torch.channels_last)
    optimize = optimizer(model.parameters(), lr=lr)
    first_epoch, seconds = _resume(out / STATE, model, optimize, arguments)

    for epoch in range(first_epoch, epochs):
        model.train()
        started = reported = time.monotonic()
        batches = task.batches("train", batch_size, torch.default_generator, limit_train)
        for index, (inputs, targets) in enumerate(batches):
            step = epoch * steps_per_epoch + index
            set_progress(model, step / max(1, steps - 1), epochs)
            for group in optimize.param_groups:
                group["lr"] = lr * schedule(step / steps)
            loss = task.loss(call(model, inputs), targets)
            where = f"epoch {epoch + 1}, step {index + 1}"
            if not torch.isfinite(loss):
                raise ValueError(f"The loss is {loss.item()} in {where}, so the training stopped.")
            optimize.zero_grad()
            loss.backward()
            optimize.step()
            now = time.monotonic()
            if now - reported > REPORT_EVERY or index == steps_per_epoch - 1:
                reported = now
                left = (now - started) / (index + 1) * (steps - step - 1)
                _report(
                    f"epoch {epoch + 1} of {epochs}, step {index + 1} of {steps_per_epoch}, "
                    f"loss {loss.item():.3f}, {int(left) // 60} min {int(left) % 60:02} s left"
                )
        if bad := [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]:
            raise ValueError(
                f"{bad[0]} has values that are not numbers after {where}, so the training stopped."
            )
        seconds += time.monotonic() - started
        state = {
            "arguments": arguments,
            "epochs_done": epoch + 1,
            "seconds": seconds,
            "model": model.state_dict(),
            "optimizer": optimize.state_dict(),
            "random": torch.get_rng_state(),
        }
        save_atomically(out / STATE, state)

    metrics = evaluate(model, task)
    _report(f"test {task.metric} {metrics[task.metric]:.2%} after {seconds:.0f} s of training")
    extra = {**metadata.get("extra", {}), **{f"test_{name}": value for name, value in metrics.items()}}
    save_checkpoint(out / CHECKPOINT, model, **{**metadata, "extra": extra | {"train_seconds": seconds}})
    return metrics


def _refuse_unwritable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"The folder {folder} cannot be written: {error.strerror or error}.") from error


def evaluate(model: nn.Module, task: Task, split: str = "test", batch_size: int = 500) -> dict[str, float]:
    """The metrics of `model` on a split of the task, by name; leaves it in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        batches = task.batches(split, batch_size)
        return task.metrics((call(model, inputs), targets) for inputs, targets in batches)


def _resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, arguments: dict[str, Any]
) -> tuple[int, float]:
    """Restore the training at `path`, if there is one; return its whole epochs and the seconds it took."""
    if not path.exists():
        return 0, 0.0
    state = load_untrusted(path)
    try:
        for key, value in arguments.items():
            if state["arguments"][key] != value:
                raise ValueError(
                    f"{path.parent} holds a training with {key} {state['arguments'][key]!r}, not {value!r}; "
                    f"name another folder, or remove {path} to start anew."
                )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        _report(f"going on after epoch {state['epochs_done']}")
        return int(state["epochs_done"]), float(state["seconds"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not the state of this training; remove it to start anew."
        ) from error


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
