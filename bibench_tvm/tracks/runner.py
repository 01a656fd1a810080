"""Running a plan: what is missing and nothing else, and a result file for each job that is done."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bibench_tvm.artifact.artifact import digest
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.jobs.engine import Workers, run_jobs
from bibench_tvm.jobs.job import Outcome, from_folder
from bibench_tvm.tracks.figures import figures_of, layers_of
from bibench_tvm.tracks.plan import HERE, JOBS, Item
from bibench_tvm.tracks.results import Key, Result, edited, path_of, read, write
from rpc.machine_name import model_name

VERSIONED = ("bibench-tvm", "apache-tvm", "lightning", "numpy", "torch", "torchmetrics")


def run_plan(
    items: Sequence[Item],
    folder: Path,
    *,
    cores: int,
    cluster: Workers | None = None,
    advance: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run the jobs that have no result yet, in `folder`/jobs, and write results as they come.

    A job whose outcome is there but whose result file is not is not run again: its result is written anew.

    Raises:
        UsageError, BibenchError: as `run_jobs`.
    """
    by_name = {item.job.name: item for item in items}
    around = surroundings()
    timed = functools.cache(_timed_on)

    def settle(outcome: Outcome) -> None:
        if outcome.state == "done":
            item = by_name[outcome.name]
            command = from_folder(item.job.command, str(folder.absolute()))
            for key in item.keys:
                _keep(folder, key, command, outcome, around, timed)
        advance(outcome)

    return run_jobs([item.job for item in items], folder / JOBS, cores=cores, cluster=cluster, advance=settle)


def _keep(
    folder: Path,
    key: Key,
    command: list[str],
    outcome: Outcome,
    around: dict[str, Any],
    timed: Callable[[], dict[str, int]],
) -> None:
    try:
        there = read(path_of(folder, key))
        if there.key == key and there.hashes.get("job") == outcome.identity and not edited(there):
            return
    except BibenchError:
        pass  # there is none yet, or a damaged one
    if key.track == "inference" and key.device == HERE:
        around = around | {"machine": around["machine"] | timed()}
    write(
        folder,
        Result(
            key=key,
            figures=figures_of(key, outcome),
            command=command,
            hashes=_hashes(outcome, folder / JOBS),
            layers=layers_of(key, outcome),
            conditions={"load_average": os.getloadavg()[0]},
            ended=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=outcome.seconds,
            **around,
        ),
    )


def surroundings() -> dict[str, Any]:
    """The versions, the commit and the machine, as a Result has them."""
    versions = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
    }
    return {"versions": versions, "commit": _commit(), "machine": machine}


def _timed_on() -> dict[str, int]:
    """What a core of this machine can do at most, and no layer exceed; {} where that cannot be found."""
    line = [sys.executable, "-m", "bibench_tvm.measuring.limit"]
    try:
        said = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
        return msgspec.json.decode(said.stdout, type=dict[str, int])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return {}


def _processor() -> str:
    return model_name() or platform.processor() or platform.machine()


def _commit() -> str:
    line = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _hashes(outcome: Outcome, jobs: Path) -> dict[str, str]:
    found = {"job": outcome.identity}
    if data := outcome.result.get("data"):
        found["data"] = str(data)
    for name in ("checkpoint", "evaluated"):
        path = jobs / str(outcome.result.get(name, ""))
        if path.is_file():
            found["checkpoint"] = digest(path)
    return found
