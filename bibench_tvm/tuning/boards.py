"""Runs compiled candidates on every board of a key at once, one worker a board.

A session serves many trials, and the board ends it after `SESSION_LIMIT_S`: a candidate that hangs or crashes
costs the rest of one session. Whether it was the candidate or the board shows when it is tried again.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.tuning.builder import SYMBOL
from rpc.session import BoardInfo, RemoteError, list_boards, session

SESSION_LIMIT_S = 60.0
_SESSION_S = 25.0  # an older session is renewed before a trial, which so has the rest for itself
_WAIT_S = 20.0
_PAUSE_S, _IDLE_S = 0.5, 0.5
_LAST_TRIAL_S = 10.0
_MOST_LOSSES = 4
_TRIES = 2  # in a session that was good: a candidate that ends two of them is to blame


@dataclass
class Job:
    """work: what is done on the board; result: what it gave; reason: why it failed, in words."""

    work: Callable[[OnBoard], Any]
    result: Any = None
    reason: str = ""
    board: str = ""
    tries: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class NoBoard(BibenchError):
    """No board of the key can be had any more."""


class OnBoard:
    """One session, for the work of jobs."""

    def __init__(self, board: Any):
        self.board = board
        self.emulated: bool = board.info.emulated
        self._device = board.remote.cpu(0)
        self._threads: int = board.threads()
        self._loaded: dict[Path, Any] = {}

    def load(self, library: Path) -> Any:
        """Once in a session: to overwrite a library that is loaded is the end of the process."""
        if library not in self._loaded:
            self._loaded[library] = self.board.remote.load_module(self.board.upload(library))
        return self._loaded[library]

    def tensors(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        return [tvm.runtime.tensor(array, self._device) for array in arrays]

    def seconds(self, module: Any, tensors: Sequence[Any], *, repeat: int, burst_ms: int) -> list[float]:
        """Of one call, for each burst. On an emulated board 1e-9 times its instructions, once."""
        number = dict(number=1, repeat=1) if self.emulated else dict(repeat=repeat, min_repeat_ms=burst_ms)
        evaluator = module.time_evaluator(SYMBOL, self._device, **number)
        return [float(s) for s in evaluator(*tensors).results]

    def conditions(self) -> str:
        return json.dumps({**self.board.conditions(), "threads": self._threads}, sort_keys=True)


class Boards:
    """Gives jobs to one worker for each board of the key."""

    def __init__(self, tracker: tuple[str, int], key: str, *, limit_s: float = SESSION_LIMIT_S):
        self._tracker, self._key, self._limit_s = tracker, key, limit_s
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._workers: list[threading.Thread] = []
        self._losses: list[str] = []  # of boards and sessions, since a job was last done
        self._closed = False

    def listed(self) -> list[BoardInfo]:
        """What the tracker says of the boards of the key. Raises NoBoard."""
        try:
            everything = list_boards(self._tracker)
        except RemoteError as error:
            raise NoBoard(str(error)) from None
        found = [board for board in everything if board.key == self._key]
        if not found:
            known = ", ".join(sorted({repr(board.key) for board in everything})) or "none at all"
            where = ":".join(map(str, self._tracker))
            raise NoBoard(f"The tracker at {where} has no board {self._key!r}; its boards are: {known}.")
        return found

    def run(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Gives each job as it gets done, in their order. Raises NoBoard where no board is left."""
        for _ in range(min(len(jobs), len(self.listed())) - len(self._workers)):
            self._workers.append(threading.Thread(target=self._work, daemon=True))
            self._workers[-1].start()
        for job in jobs:
            self._jobs.put(job)
        for job in jobs:
            while not job.done.wait(0.2):
                if len(self._losses) > _MOST_LOSSES * len(self._workers):
                    raise NoBoard(self._losses[-1])
            yield job

    def close(self) -> None:
        self._closed = True
        for _ in self._workers:
            self._jobs.put(None)
        # The program must not end while one of them is within TVM, which would abort.
        for worker in self._workers:
            worker.join(_LAST_TRIAL_S)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            try:
                with session(self._tracker, self._key, wait_s=_WAIT_S, limit_s=self._limit_s) as board:
                    self._serve(OnBoard(board), job)
            except Exception as error:  # the tracker or the board, and not the candidate
                self._losses.append(str(error) if isinstance(error, RemoteError) else _sentence(error))
                time.sleep(_PAUSE_S)
            if not job.done.is_set():
                self._jobs.put(job)

    def _serve(self, here: OnBoard, first: Job) -> None:
        """Jobs while the session is good and there are any, since another may wait for the board."""
        end = time.monotonic() + _SESSION_S
        good = self._attempt(here, first)
        while good and not self._closed and time.monotonic() < end:
            try:
                job = self._jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            try:
                good = self._attempt(here, job)
            finally:
                if not job.done.is_set():
                    self._jobs.put(job)

    def _attempt(self, here: OnBoard, job: Job) -> bool:
        """False: the session is of no more use; the job is to be tried again, unless it is done."""
        good = True
        try:
            job.result, job.reason = job.work(here), ""
        except RemoteError:
            raise
        except Exception as error:  # what comes of a crash or hang at the other end differs
            # First of all: the board's tensors in the error's frames, when freed, would wait for an answer.
            here.board.close()
            good, job.reason = False, here.board.why_lost() or _sentence(error)
            job.tries += 1
            if job.tries < _TRIES:
                return False
        self._losses.clear()
        job.board = ":".join(map(str, here.board.info.address))
        job.done.set()
        return good


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:300]


@contextlib.contextmanager
def boards_of(tracker: tuple[str, int], key: str, *, limit_s: float = SESSION_LIMIT_S) -> Iterator[Boards]:
    made = Boards(tracker, key, limit_s=limit_s)
    try:
        yield made
    finally:
        made.close()
