"""Training: Adam with a cosine schedule (section 4 of the paper), resumable from the last whole epoch.

A plain loop: what a framework would add to it here is more than the loop is.
"""

import math
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trainers.checkpoint import CheckpointError, load_untrusted, save_atomically, save_checkpoint
from trainers.convert import set_progress
from trainers.tasks import Task

CHECKPOINT = "checkpoint.pt"
STATE = "state.pt"  # the training after its last whole epoch, which a later call goes on from
REPORT_EVERY = 10.0  # seconds


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
) -> float:
    """Train `model` in place, write `out`/checkpoint.pt, and return the accuracy on the whole test set, 0
    to 1.

    Progress goes to standard error. After each epoch the state of the training is written to
    `out`/state.pt; a call with the same arguments goes on from there with the very numbers of a training
    that was not interrupted.

    Args:
        limit_train: how many of the training samples are used, all if left out.
        metadata: the keyword arguments of `save_checkpoint`; the accuracy joins its "extra".

    Raises:
        ValueError: `out` cannot be written, or holds the state of a training with other arguments; or the
            loss or a weight became NaN or infinite. What was written after the last epoch stays.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    out = Path(out)
    try:  # before the first epoch rather than after it
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(f"The folder {out} cannot be written: {error.strerror or error}.") from error
    arguments = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "limit_train": limit_train,
    }
    arguments |= {key: value for key, value in metadata.items() if key not in ("extra", "input_shape")}
    samples = min(limit_train or task.train_size(), task.train_size())
    steps_per_epoch = math.ceil(samples / batch_size)
    steps = epochs * steps_per_epoch
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on a CPU
    optimizer = torch.optim.Adam(model.parameters(), lr)
    first_epoch, seconds = _resume(out / STATE, model, optimizer, arguments)

    for epoch in range(first_epoch, epochs):
        model.train()
        started = reported = time.monotonic()
        for index, (images, labels) in enumerate(task.train_batches(batch_size, limit_train)):
            step = epoch * steps_per_epoch + index
            set_progress(model, step / max(1, steps - 1), epochs)
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
            loss = F.cross_entropy(model(images), labels)
            where = f"epoch {epoch + 1}, step {index + 1}"
            if not torch.isfinite(loss):
                raise ValueError(f"The loss is {loss.item()} in {where}, so the training stopped.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
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
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        save_atomically(out / STATE, state)

    accuracy = evaluate(model, task)
    _report(f"test accuracy {accuracy:.2%} after {seconds:.0f} s of training")
    extra = {**metadata.get("extra", {}), "test_accuracy": accuracy, "train_seconds": seconds}
    save_checkpoint(out / CHECKPOINT, model, **{**metadata, "extra": extra})
    return accuracy


def evaluate(model: nn.Module, task: Task, batch_size: int = 500) -> float:
    """The share of the test set that `model` classifies rightly, 0 to 1; leaves it in evaluation mode."""
    model.eval()
    right = total = 0
    with torch.inference_mode():
        for images, labels in task.test_batches(batch_size):
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


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
