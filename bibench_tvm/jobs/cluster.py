"""Jobs on the machines of a Ray cluster, which share the folder of the jobs and have this program."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.jobs.job import Job, Outcome, outcome_before
from bibench_tvm.jobs.process import Processes, run_job

_HEARING = 0.2  # seconds until a job hears that it is to stop: Ray tells only who is awake
RETRIES = 3  # of a job whose machine is lost; it goes on elsewhere from what it has written


class Cluster:
    """One job for each processor of the cluster at a time."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_run)
        self.asked: dict[Future[Outcome], Any] = {}

    def submit(self, job: Job, identity: str, folder: Path) -> Future[Outcome]:
        asked = self.remote.remote(job, identity, folder.absolute())
        found: Future[Outcome] = Future()
        self.asked[found] = asked
        asked.future().add_done_callback(lambda ended: self._settle(ended, job, found))
        return found

    def _settle(self, ended: Future[Outcome], job: Job, found: Future[Outcome]) -> None:
        try:
            outcome = ended.result()
        except self.ray.exceptions.TaskCancelledError:
            outcome = Outcome(name=job.name, state="stopped", command=job.command, reason="as asked")
        except self.ray.exceptions.RayError:
            lost = f"the cluster lost it {RETRIES + 1} times"
            outcome = Outcome(name=job.name, state="failed", command=job.command, reason=lost)
        del self.asked[found]
        found.set_result(outcome)

    def stop(self) -> None:
        for asked in list(self.asked.values()):
            self.ray.cancel(asked)


@contextlib.contextmanager
def ray_cluster(address: str) -> Iterator[Cluster]:
    """The cluster at HOST:PORT, or "auto" for the one that this machine belongs to.

    Raises:
        BibenchError: there is none; UsageError: ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UsageError('--ray needs Ray: `pip install "bibench-tvm[ray]"`.') from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise BibenchError(f"There is no Ray cluster at {address}: `ray status` says more.") from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray says which machines it lost
            yield Cluster(ray)
    finally:
        ray.shutdown()


def _run(job: Job, identity: str, folder: Path) -> Outcome:
    """On a machine of the cluster. What it finished before it was lost is not run again."""
    if known := outcome_before(folder, job, identity):
        return known
    processes = Processes()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_job, job, identity, folder, processes)
        try:
            while not running.done():
                time.sleep(_HEARING)
        except KeyboardInterrupt:
            processes.stop()
        return running.result()
