"""One job in a process of its own, which can be asked to stop and may take only so long."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bibench_tvm.cli.whole_file import whole_file
from bibench_tvm.jobs.death import end_with_parent
from bibench_tvm.jobs.forks import FORKED, Nursery
from bibench_tvm.jobs.job import OUTCOME, Job, Outcome, folder_of, from_folder

_WORDS = "job.log"  # what the command said on standard error
_PRINTED = "job.out"  # and on standard output, while it runs
_PATIENCE = 30.0  # seconds for a job that is asked to stop


class Running(Protocol):
    """A process that was started."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, -N where signal N ended it. Raises subprocess.TimeoutExpired."""


class Processes:
    """Those that run, so that they can be asked to stop; with a nursery, some of them are forked there."""

    def __init__(self, nursery: Nursery | None = None) -> None:
        self.nursery = nursery
        self.running: set[Running] = set()
        self.lock = threading.Lock()
        self.stopping = False

    def start(self, job: Job, place: Path) -> Running | None:
        """What it prints goes to two files in `place`. None once the processes were asked to stop."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        printed, words = place / _PRINTED, place / _WORDS
        with self.lock, printed.open("wb") as printed_file, words.open("wb") as words_file:
            if self.stopping:
                return None
            process: Running | None = None
            # Each has a session of its own: Ctrl-C is for this process, which stops the jobs in its own way.
            if self.nursery and job.command[0] in FORKED and not job.alone:
                process = self.nursery.start(job.command, environment, printed, words)
            if process is None:
                process = subprocess.Popen(
                    [sys.executable, "-m", *job.command],
                    stdin=subprocess.DEVNULL,
                    stdout=printed_file,
                    stderr=words_file,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
            self.running.add(process)
            return process

    def ended(self, process: Running) -> None:
        with self.lock:
            self.running.discard(process)

    def stop(self) -> None:
        """Ask all to stop, and end those that do not."""
        with self.lock:
            self.stopping = True
            asked = list(self.running)
        _end(asked)


def _end(processes: Sequence[Running]) -> None:
    """Ask them to stop, and kill those that do not, with what they started."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def run_job(job: Job, identity: str, folder: Path, processes: Processes) -> Outcome:
    """Run its command, and write down how it went unless it was asked to stop."""
    place = folder_of(folder, job.name)
    place.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    process = processes.start(job, place)
    if process is None:
        return Outcome(name=job.name, state="stopped", command=job.command, reason="it did not start")
    late = ""
    try:
        code = process.wait(job.limit)
    except subprocess.TimeoutExpired:
        late = f"it took longer than {job.limit:g} s, and was stopped"
        _end([process])
        code = process.wait()
    processes.ended(process)
    seconds = time.monotonic() - started
    printed = place / _PRINTED
    result = _parsed(printed.read_bytes())
    printed.unlink()
    if late:
        outcome = Outcome(name=job.name, state="failed", command=job.command, seconds=seconds, reason=late)
    elif code == 0 and result is not None:
        outcome = Outcome(name=job.name, state="done", command=job.command, seconds=seconds, result=result)
    elif processes.stopping:
        return Outcome(
            name=job.name, state="stopped", command=job.command, seconds=seconds, reason="as asked"
        )
    else:
        reason = _reason(result, code, place / _WORDS)
        outcome = Outcome(name=job.name, state="failed", command=job.command, seconds=seconds, reason=reason)
    inside = str(folder.absolute())
    command, result = from_folder(outcome.command, inside), from_folder(outcome.result, inside)
    outcome = msgspec.structs.replace(outcome, identity=identity, command=command, result=result)
    with whole_file(place / OUTCOME) as file:
        file.write(msgspec.json.format(msgspec.json.encode(outcome)))
    return outcome


def _parsed(printed: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(printed)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _reason(result: dict[str, Any] | None, code: int, words: Path) -> str:
    if result and isinstance(result.get("error"), str):
        return result["error"]
    if code < 0:
        return f"it was killed by {signal.Signals(-code).name}"
    if code == 0:
        return "it printed no JSON object"
    return f"it ended with the exit code {code}; {words} has what it said"
