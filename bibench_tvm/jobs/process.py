"""One job in a process of its own, which can be asked to stop and may take only so long."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bibench_tvm.cli.whole_file import whole_file
from bibench_tvm.jobs.job import OUTCOME, Job, Outcome, folder_of

_WORDS = "job.log"  # what the command said on standard error
_PATIENCE = 30.0  # seconds for a job that is asked to stop
_PR_SET_PDEATHSIG = 1


class Processes:
    """Those that run, so that they can be asked to stop."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()
        self.stopping = False

    def start(self, command: list[str], words: Any) -> subprocess.Popen[bytes] | None:
        with self.lock:
            if self.stopping:
                return None
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                start_new_session=True,  # Ctrl-C is for this process, which stops the jobs in its own way
                preexec_fn=_end_with_parent,
            )
            self.running.add(process)
            return process

    def ended(self, process: subprocess.Popen[bytes]) -> None:
        with self.lock:
            self.running.discard(process)

    def stop(self) -> None:
        """Ask all to stop, and end those that do not."""
        with self.lock:
            self.stopping = True
            asked = list(self.running)
        _end(asked)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask them to stop, and kill those that do not, with what they started."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """In the new process: have it asked to stop when this one is killed. Linux only, elsewhere nothing."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run_job(job: Job, identity: str, folder: Path, processes: Processes) -> Outcome:
    """Run its command, and write down how it went unless it was asked to stop."""
    place = folder_of(folder, job.name)
    place.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (place / _WORDS).open("wb") as words:
        process = processes.start([sys.executable, "-m", *job.command], words)
        if process is None:
            return Outcome(name=job.name, state="stopped", command=job.command, reason="it did not start")
        try:
            printed, _ = process.communicate(timeout=job.limit)
            late = ""
        except subprocess.TimeoutExpired:
            late = f"it took longer than {job.limit:g} s, and was stopped"
            _end([process])
            printed, _ = process.communicate()
        processes.ended(process)
    seconds = time.monotonic() - started
    result = _parsed(printed)
    if late:
        outcome = Outcome(name=job.name, state="failed", command=job.command, seconds=seconds, reason=late)
    elif process.returncode == 0 and result is not None:
        outcome = Outcome(name=job.name, state="done", command=job.command, seconds=seconds, result=result)
    elif processes.stopping:
        return Outcome(
            name=job.name, state="stopped", command=job.command, seconds=seconds, reason="as asked"
        )
    else:
        reason = _reason(result, process.returncode, place / _WORDS)
        outcome = Outcome(name=job.name, state="failed", command=job.command, seconds=seconds, reason=reason)
    outcome = msgspec.structs.replace(outcome, identity=identity)
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
