"""A job and how it went: a command that prints one JSON object, and a file that says what it printed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

OUTCOME = "job.json"
_LONGEST = 200  # bytes of a folder's name; file systems take 255


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A command, `python -m` with these arguments, that prints one JSON object.

    Attributes:
        name: what it is called, and its folder under that of all jobs.
        command: the arguments; those in the folder of all jobs have their absolute path.
        outside: argument that says where something outside that folder lies -> what it is, wherever it lies.
        needs: names of the jobs that have to be done before.
        alone: whether no other job may run meanwhile, as it times something.
        limit: the seconds that it may take; None for as long as it likes.
    """

    name: str
    command: list[str]
    outside: dict[str, str] = {}
    needs: list[str] = []
    alone: bool = False
    limit: float | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job went.

    Attributes:
        command: what was run, with paths from the folder of all jobs; identity: of this and of all that it
            needed, as `identity_of_job`: a job that has another now is run again.
        reason: why it failed, or why it did not start; result: the object that it printed,
            with such paths.
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
    """Where a job keeps what it has. Of a part of its name that is too long for a folder, the beginning and a
    digest are taken."""
    return folder.joinpath(*map(_fitting, re.sub(r"[^\w.@+=,/-]", "_", name).split("/")))


def _fitting(part: str) -> str:
    whole = part.encode()
    if len(whole) <= _LONGEST:
        return part
    return f"{whole[:_LONGEST].decode(errors='ignore')}+{hashlib.sha256(whole).hexdigest()[:10]}"


def outcomes_in(folder: Path) -> list[Outcome]:
    """Those that earlier calls wrote below `folder`; what is none is left out."""
    found = []
    for path in sorted(folder.rglob(OUTCOME)):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            found.append(msgspec.json.decode(path.read_bytes(), type=Outcome))
    return found


def outcome_before(folder: Path, job: Job, identity: str) -> Outcome | None:
    """That of an earlier call, if the job is done and is the same."""
    outcome = _read(folder, job.name)
    if outcome is None or outcome.state != "done":
        return None
    return outcome if outcome.identity == identity else _from_elsewhere(outcome, job, folder)


def _from_elsewhere(outcome: Outcome, job: Job, folder: Path) -> Outcome | None:
    """That of a program for which a job was its command with absolute paths, if it is the same but for where
    the folder lay."""
    place = str(folder.absolute())
    needed = [before.identity if (before := _read(folder, need)) else "" for need in sorted(job.needs)]
    if outcome.identity != _digest(outcome.command, needed):
        return None
    lay = place
    for then, now in zip(outcome.command, job.command, strict=False):
        inside = from_folder(now, place)
        if inside != now and then.endswith(f"/{inside}"):
            lay = then.removesuffix(f"/{inside}")
    if from_folder(outcome.command, lay) != from_folder(job.command, place):
        return None
    return msgspec.structs.replace(
        outcome, command=from_folder(outcome.command, lay), result=from_folder(outcome.result, lay)
    )


def _read(folder: Path, name: str) -> Outcome | None:
    try:
        return msgspec.json.decode((folder_of(folder, name) / OUTCOME).read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None


def identity_of_job(job: Job, folder: Path, needed: Iterable[str]) -> str:
    """A digest of the job's command and of the identities `needed`, the same wherever the folder lies."""
    place = str(folder.absolute())
    return _digest((job.outside.get(word, from_folder(word, place)) for word in job.command), needed)


def _digest(command: Iterable[str], needed: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps([*command, *needed]).encode()).hexdigest()


def from_folder(said: Any, folder: str) -> Any:
    """The same with each text that is a path below `folder`, which is absolute, as a path from there."""
    if isinstance(said, str):
        return said.removeprefix(f"{folder}/")
    if isinstance(said, dict):
        return {name: from_folder(value, folder) for name, value in said.items()}
    return [from_folder(value, folder) for value in said] if isinstance(said, list) else said
