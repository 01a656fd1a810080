"""A job and how it went: a command that prints one JSON object, and a file that says what it printed."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

OUTCOME = "job.json"
_LONGEST = 200  # bytes of a folder's name; file systems take 255


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
    try:
        outcome = msgspec.json.decode((folder_of(folder, job.name) / OUTCOME).read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None
    return outcome if outcome.state == "done" and outcome.identity == identity else None
