"""Ending a training when it is asked to: by Ctrl-C or SIGTERM."""

import signal
import threading
from typing import Any

from lightning.pytorch import Callback

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop(Callback):
    """The first signal ends the training after the step that runs, with its state; the second at once."""

    def on_train_start(self, trainer: Any, training: Any) -> None:  # Lightning has set its own by then
        if threading.current_thread() is not threading.main_thread():
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def ask(number: int, frame: object) -> None:
            for known, handler in before.items():
                signal.signal(known, handler)
            training.stop_asked = True

        for number in SIGNALS:
            signal.signal(number, ask)
