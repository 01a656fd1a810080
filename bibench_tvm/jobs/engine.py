"""Runs a graph of jobs: one process each with one thread, as many at a time as there are cores.

What is done stays done: each job's outcome is a file, written whole, and a call with the same folder runs
only what has none or failed. A failed job does not stop the others, but for those that need it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import msgspec

from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.cli.whole_file import whole_file

OUTCOME = "job.json"
_WORDS = "job.log"  # what the command said on standard error
_PATIENCE = 30.0  # seconds for a job that is asked to stop
_PR_SET_PDEATHSIG = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A command, `python -m` with these arguments, that prints one JSON object.

    Attributes:
        name: what it is called, and its folder under that of all jobs.
        command: the arguments; `needs`: names of the jobs that have to be done before.
        alone: whether no other job may run meanwhile, as it times something.
        limit: the seconds that it may take; None for as long as it likes.
    """

    name: str
    command: list[str]
    needs: list[str] = []
    alone: bool = False
    limit: float | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job went.

    Attributes:
        command: what was run; identity: of this and of all that it needed, as `_identities`: a job that has
            another now is run again.
        reason: why it failed, or why it did not start; result: the object that it printed.
        seconds: of wall-clock time, 0 where it did not run.
    """

    name: str
    state: Literal["done", "failed", "blocked", "stopped"]
    command: list[str]
    identity: str = ""
    reason: str = ""
    seconds: float = 0.0
    result: dict[str, Any] = {}


def folder_of(folder: Path, name: str) -> Path:
    """Where a job keeps what it has."""
    return folder / re.sub(r"[^\w.@+=,/-]", "_", name)


def outcomes_in(folder: Path) -> list[Outcome]:
    """Those that earlier calls wrote below `folder`; what is none is left out."""
    found = []
    for path in sorted(folder.rglob(OUTCOME)):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            found.append(msgspec.json.decode(path.read_bytes(), type=Outcome))
    return found


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    cores: int,
    advance: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run what is not done yet; how each job went, in the order of `jobs`.

    `advance` is called with each outcome as it comes, those of earlier calls first. Ctrl-C and SIGTERM ask
    the jobs that run to stop, and those that did not end are "stopped".

    Raises:
        UsageError: two jobs have one name, one needs what there is not, or they need each other in a circle.
        BibenchError: another process runs the jobs of this folder.
    """
    by_name, order = {job.name: job for job in jobs}, _order(jobs)
    identities = _identities(by_name)
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Outcome], str] = {}
    lonely: list[Job] = []
    processes = _Processes()

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        order.done(outcome.name)
        advance(outcome)

    with _alone(folder), ThreadPoolExecutor(cores) as pool:
        try:
            while order.is_active():
                for name in order.get_ready():
                    job = by_name[name]
                    if known := _outcome_before(folder, job, identities[name]) or _blocked(job, outcomes):
                        settle(known)
                    elif job.alone:
                        lonely.append(job)
                    else:
                        running[pool.submit(_run, job, identities[job.name], folder, processes)] = name
                if not running and lonely:
                    job = lonely.pop(0)
                    running[pool.submit(_run, job, identities[job.name], folder, processes)] = job.name
                if running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[future]
                        settle(future.result())
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            for future in [future for future in running if not future.cancelled()]:
                settle(future.result())
    stopped = {
        job.name: Outcome(name=job.name, state="stopped", command=job.command, reason="it did not start")
        for job in jobs
    }
    return [(stopped | outcomes)[job.name] for job in jobs]


def _order(jobs: Sequence[Job]) -> TopologicalSorter[str]:
    names = [job.name for job in jobs]
    for job in jobs:
        if names.count(job.name) > 1 or folder_of(Path(), job.name) == Path():
            raise UsageError(f"Two jobs cannot both be called {job.name!r}.")
        if lacking := [name for name in job.needs if name not in names]:
            raise UsageError(f"The job {job.name} needs {lacking[0]}, and there is no such job.")
    order = TopologicalSorter({job.name: job.needs for job in jobs})
    try:
        order.prepare()
    except CycleError as error:
        raise UsageError(f"These jobs need each other: {', '.join(error.args[1])}.") from error
    return order


def _identities(jobs: dict[str, Job]) -> dict[str, str]:
    """Name -> a digest of the job's command and of the identities of the jobs that it needs."""
    found: dict[str, str] = {}
    for name in TopologicalSorter({job.name: job.needs for job in jobs.values()}).static_order():
        job = jobs[name]
        parts = [*job.command, *(found[need] for need in sorted(job.needs))]
        found[name] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return found


def _outcome_before(folder: Path, job: Job, identity: str) -> Outcome | None:
    """That of an earlier call, if the job is done and is the same."""
    try:
        outcome = msgspec.json.decode((folder_of(folder, job.name) / OUTCOME).read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None
    return outcome if outcome.state == "done" and outcome.identity == identity else None


def _blocked(job: Job, outcomes: dict[str, Outcome]) -> Outcome | None:
    for name in job.needs:
        if outcomes[name].state != "done":
            reason = f"it needs {name}, which is {outcomes[name].state}"
            return Outcome(name=job.name, state="blocked", command=job.command, reason=reason)
    return None


class _Processes:
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


def _run(job: Job, identity: str, folder: Path, processes: _Processes) -> Outcome:
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


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process runs the jobs of a folder; the lock goes with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be written: {error.strerror or error}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BibenchError(f"Another process runs the jobs of {folder}.") from error
        yield
