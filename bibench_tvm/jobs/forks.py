"""Processes that begin with what trainings import already there, which is seconds of each short job.

`python -m bibench_tvm.jobs.forks` is the nursery: it imports, has no threads, and forks what it is asked for
on standard input. On standard output it says the process of each request, and how each ended."""

from __future__ import annotations

import contextlib
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Queue

import msgspec

from bibench_tvm.jobs.death import end_with_parent

FORKED = ("bibench_tvm.compile", "bibench_tvm.summary", "bibench_tvm.train")


class _Request(msgspec.Struct):
    """`python -m` with the arguments `command`; printed, words: files for what it says on standard output and
    error; environment: of the process, and folder, where it runs."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    printed: str
    words: str


class _Answer(msgspec.Struct):
    """The process of the oldest request without one; with its exit code, that it ended."""

    pid: int
    code: int | None = None


class Fork:
    """A process of the nursery."""

    def __init__(self, pid: int, ended: Future[int]) -> None:
        self.pid, self.ended = pid, ended

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, -N where signal N ended it. Raises subprocess.TimeoutExpired."""
        try:
            return self.ended.result(timeout)
        except TimeoutError as error:
            raise subprocess.TimeoutExpired("", timeout or 0.0) from error


class Nursery:
    """Starts with the first request. All requests have the same environment, as far as libraries read it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()
        self.started: Queue[Fork | None] = Queue()
        self.running: dict[int, Future[int]] = {}

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], printed: Path, words: Path
    ) -> Fork | None:
        """None where the nursery is gone."""
        request = _Request(list(command), dict(environment), os.getcwd(), str(printed), str(words))
        with self.lock:
            if self.process is None:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "bibench_tvm.jobs.forks"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=dict(environment),
                    start_new_session=True,  # Ctrl-C is not for it
                    preexec_fn=end_with_parent,
                )
                threading.Thread(target=self._listen, daemon=True).start()
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(msgspec.json.encode(request) + b"\n")
                self.process.stdin.flush()
            except OSError:
                return None
            return self.started.get()

    def close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            self.process.wait()

    def _listen(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            answer = msgspec.json.decode(line, type=_Answer)
            if answer.code is None:
                self.running[answer.pid] = Future()
                self.started.put(Fork(answer.pid, self.running[answer.pid]))
            else:
                self.running.pop(answer.pid).set_result(answer.code)
        for ended in self.running.values():
            ended.set_result(-signal.SIGKILL)
        self.started.put(None)


def _serve() -> None:
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    unread = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 1 << 12)
            _reap()
        if 0 in ready:
            read = os.read(0, 1 << 16)
            if not read:
                return
            *lines, unread = (unread + read).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    os.close(woken)
                    os.close(waker)
                    _become(msgspec.json.decode(line, type=_Request))
                    return
                _say(_Answer(pid))


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say(_Answer(pid, os.waitstatus_to_exitcode(status)))


def _say(answer: _Answer) -> None:
    os.write(1, msgspec.json.encode(answer) + b"\n")


def _become(request: _Request) -> None:
    """In the forked process: what was asked for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    end_with_parent()
    for path, flags, number in (
        (os.devnull, os.O_RDONLY, 0),
        (request.printed, os.O_WRONLY | os.O_APPEND, 1),
        (request.words, os.O_WRONLY | os.O_APPEND, 2),
    ):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.argv = list(request.command)
    runpy.run_module(request.command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    with contextlib.suppress(ModuleNotFoundError):  # without PyTorch there is less to import
        import trainers.tasks
        import trainers.training.fit  # noqa: F401
    import bibench_tvm.compiling.compiler  # noqa: F401

    _serve()
