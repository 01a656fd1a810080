"""What a training says while it runs, on standard error."""

import sys
import time
from typing import Any

from lightning.pytorch import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

REPORT_EVERY = 10.0  # seconds between two lines, where there is no terminal to draw a bar on


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Report(Callback):
    """A bar with the time left on a terminal, elsewhere a line every ten seconds and after each epoch."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.reported = self.started = 0.0

    def on_train_start(self, trainer: Any, training: Any) -> None:
        self.started = self.reported = time.monotonic()
        self.first = training.batches_done
        console = Console(stderr=True)
        if console.is_terminal and trainer.is_global_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self.bar.start()
            self.line = self.bar.add_task("", total=training.order.per_epoch * training.epochs)

    def on_train_batch_end(self, trainer: Any, training: Any, outputs: Any, *rest: Any) -> None:
        if not trainer.is_global_zero:
            return
        done, per_epoch = training.batches_done + 1, training.order.per_epoch
        now = time.monotonic()
        last = done % per_epoch == 0
        if self.bar is None and not last and now - self.reported < REPORT_EVERY:
            return
        epoch, batch = (done - 1) // per_epoch + 1, (done - 1) % per_epoch + 1
        where = f"epoch {epoch} of {training.epochs}"
        loss = float(training.loss)
        if self.bar is not None:
            self.bar.update(self.line, completed=done, description=f"{where}, loss {loss:.3f}")
        if self.bar is None or last:
            self.reported = now
            seconds = (now - self.started) / (done - self.first) * (per_epoch * training.epochs - done)
            left = f"{int(seconds) // 60} min {int(seconds) % 60:02} s left"
            report(f"{where}, step {batch} of {per_epoch}, loss {loss:.3f}, {left}")

    def on_train_end(self, trainer: Any, training: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_exception(self, trainer: Any, training: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, training)
