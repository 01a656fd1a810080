"""Runs a graph of jobs: one process each with one thread, as many at a time as there are cores.

What is done stays done: each job's outcome is a file, written whole, and a call with the same folder runs
only what has none or failed. A failed job does not stop the others, but for those that need it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Protocol

from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.jobs.forks import Nursery
from bibench_tvm.jobs.job import Job, Outcome, folder_of, identity_of_job, outcome_before
from bibench_tvm.jobs.process import Processes, run_job

# Seconds: a signal that the kernel hands to another thread does not wake the main one, which alone hears it.
_DEAF = 1.0


class Workers(Protocol):
    """Who runs jobs, each as soon as there is room."""

    def submit(self, job: Job, identity: str, folder: Path) -> Future[Outcome]: ...

    def stop(self) -> None:
        """Ask the jobs that run to stop; no other begins."""


class Cores:
    """So many at a time on this machine."""

    def __init__(self, count: int) -> None:
        self.pool, self.nursery = ThreadPoolExecutor(count), Nursery()
        self.processes = Processes(self.nursery)

    def submit(self, job: Job, identity: str, folder: Path) -> Future[Outcome]:
        return self.pool.submit(run_job, job, identity, folder, self.processes)

    def stop(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.processes.stop()


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    cores: int,
    cluster: Workers | None = None,
    advance: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run what is not done yet; how each job went, in the order of `jobs`.

    Jobs run on this machine's `cores`, or on the `cluster`, if there is one; those that have to be alone run
    here in any case, when no other could. `advance` is called with each outcome as it comes, those of earlier
    calls first. Ctrl-C and SIGTERM ask the jobs that run to stop, and those that did not end are "stopped".

    Raises:
        UsageError: two jobs have one name, one needs what there is not, or they need each other in a circle.
        BibenchError: another process runs the jobs of this folder.
    """
    by_name, order = {job.name: job for job in jobs}, _order(jobs)
    identities = _identities(by_name, folder)
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Outcome], str] = {}
    lonely: list[Job] = []
    here = Cores(cores)
    workers = cluster or here

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        order.done(outcome.name)
        advance(outcome)

    with _alone(folder), contextlib.closing(here.nursery), here.pool:
        try:
            while order.is_active():
                for name in order.get_ready():
                    job = by_name[name]
                    if known := outcome_before(folder, job, identities[name]) or _blocked(job, outcomes):
                        settle(known)
                    elif job.alone:
                        lonely.append(job)
                    else:
                        running[workers.submit(job, identities[name], folder)] = name
                if not running and lonely:
                    job = lonely.pop(0)
                    running[here.submit(job, identities[job.name], folder)] = job.name
                if running:
                    for future in wait(running, _DEAF, FIRST_COMPLETED).done:
                        del running[future]
                        settle(future.result())
        except KeyboardInterrupt:
            here.stop()
            workers.stop()
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


def _identities(jobs: dict[str, Job], folder: Path) -> dict[str, str]:
    """Name -> the identity of the job, with those of the jobs that it needs."""
    found: dict[str, str] = {}
    for name in TopologicalSorter({job.name: job.needs for job in jobs.values()}).static_order():
        found[name] = identity_of_job(jobs[name], folder, [found[need] for need in sorted(jobs[name].needs)])
    return found


def _blocked(job: Job, outcomes: dict[str, Outcome]) -> Outcome | None:
    for name in job.needs:
        needed = outcomes[name]
        if needed.state != "done":
            reason = f"it needs {name}, which is {needed.state}: {needed.reason}"
            return Outcome(name=job.name, state="blocked", command=job.command, reason=reason)
    return None


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
