"""Runs compiled candidates on every board of a key at once, one worker a board.

A session serves many trials, and the board ends it after `SESSION_LIMIT_S`: a candidate that hangs or crashes
costs the rest of one session. Whether it was the candidate or the board shows when it is tried again.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.tuning.places import OnBoard, OnDevice, Place, sentence
from rpc.devices.device import describe, reach
from rpc.missing import EmulationUnavailable
from rpc.session import BoardInfo, RemoteError, list_boards, session

SESSION_LIMIT_S = 60.0
_WAIT_S = 20.0
_PAUSE_S = 0.5
_LAST_TRIAL_S = 10.0
_MOST_LOSSES = 4
_TRIES = 2  # in a session that was good: a candidate that ends two of them is to blame


@dataclass
class Job:
    """work: what is done on the board; result: what it gave; reason: why it failed, in words."""

    work: Callable[[Place], Any]
    result: Any = None
    reason: str = ""
    board: str = ""
    tries: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class NoBoard(BibenchError):
    """No board of the key can be had any more."""


class Boards:
    """Gives jobs to one worker for each board.

    listed: says which boards there are, or raises NoBoard; opened: one that is free, for a while, in a new
    session; compiled: what they take, ".so" or ".o".
    """

    def __init__(
        self,
        listed: Callable[[], list[BoardInfo]],
        opened: Callable[[], AbstractContextManager[Place]],
        compiled: str,
    ):
        self.listed, self.opened, self.compiled = listed, opened, compiled
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._workers: list[threading.Thread] = []
        self._losses: list[str] = []  # of boards and sessions, since a job was last done
        self._closed = False

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
                with self.opened() as place:
                    self._serve(place, job)
            except Exception as error:  # the tracker or the board, and not the candidate
                ours = isinstance(error, (RemoteError, EmulationUnavailable))
                self._losses.append(str(error) if ours else sentence(error))
                time.sleep(_PAUSE_S)
            if not job.done.is_set():
                self._jobs.put(job)

    def _serve(self, here: Place, first: Job) -> None:
        """Jobs while the session is good and there are any, since another may wait for the board."""
        end = time.monotonic() + here.good_s
        good = self._attempt(here, first)
        while good and not self._closed and time.monotonic() < end:
            try:
                job = self._jobs.get(timeout=here.idle_s)
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

    def _attempt(self, here: Place, job: Job) -> bool:
        """False: the session is of no more use; the job is to be tried again, unless it is done."""
        good = True
        try:
            job.result, job.reason = job.work(here), ""
        except Exception as error:  # what comes of a crash or hang at the other end differs
            good, job.reason = False, here.blame(error)
            job.tries += 1
            if job.tries < _TRIES:
                return False
        self._losses.clear()
        job.board = here.name
        job.done.set()
        return good


@contextlib.contextmanager
def boards_of(tracker: tuple[str, int], key: str, *, limit_s: float = SESSION_LIMIT_S) -> Iterator[Boards]:
    """Those of a key at a tracker."""

    def listed() -> list[BoardInfo]:
        try:
            everything = list_boards(tracker)
        except RemoteError as error:
            raise NoBoard(str(error)) from None
        found = [board for board in everything if board.key == key]
        if not found:
            known = ", ".join(sorted({repr(board.key) for board in everything})) or "none at all"
            where = ":".join(map(str, tracker))
            raise NoBoard(f"The tracker at {where} has no board {key!r}; its boards are: {known}.")
        return found

    @contextlib.contextmanager
    def opened() -> Iterator[Place]:
        with session(tracker, key, wait_s=_WAIT_S, limit_s=limit_s) as board:
            yield OnBoard(board)

    with contextlib.closing(Boards(listed, opened, ".so")) as made:
        yield made


@contextlib.contextmanager
def device_of(key: str, *, limit_s: float = SESSION_LIMIT_S) -> Iterator[Boards]:
    """One that is reached without TVM, `adb:SERIAL` or `ssh:HOST`, as the only board. Raises RemoteError."""
    found = [describe(key)]

    @contextlib.contextmanager
    def opened() -> Iterator[Place]:
        with reach(key, limit_s=limit_s) as device:
            yield OnDevice(device)

    with contextlib.closing(Boards(lambda: found, opened, ".o")) as made:
        yield made
