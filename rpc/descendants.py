"""The processes that come of this one: found in /proc and ended, whatever groups and sessions they made.

A process that has left its group, its session and its parent is handed to the nearest ancestor that asked for
such orphans. What was started by another program on request (at, systemd-run, ssh) is none of ours, and what
runs as another user cannot be ended.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ENDING_S = 2.0
# Loaded here, since a child that was just forked must not load anything.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def adopt_orphans() -> None:
    """Has the system make this process the parent of what its descendants leave behind: Linux from 3.4 on."""
    if _prctl:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Has the system kill this process, which was just forked, when its parent dies."""
    if _prctl:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def children(process: int) -> set[int]:
    return {child for child, parent in _parents().items() if parent == process}


def end_descendants(spared: Collection[int] = ()) -> None:
    """Kills what comes of this process, but for the spared and theirs, until nothing is left or 2 s are over:
    others may be started while these are killed.
    """
    end = time.monotonic() + _ENDING_S
    while (left := _descendants(spared)) and time.monotonic() < end:
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.001)
        for process in left:
            with contextlib.suppress(
                ChildProcessError
            ):  # a grandchild: it comes here when its parent is gone
                os.waitpid(process, os.WNOHANG)


def _descendants(spared: Collection[int]) -> list[int]:
    parents = _parents()
    found, more = [], [os.getpid()]
    while more:
        more = [child for child, parent in parents.items() if parent in more and child not in spared]
        found += more
    return found


def _parents() -> dict[int, int]:
    """Of each process that can be seen."""
    found = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # Its name, in brackets, may have anything in it.
                words = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(entry)] = int(words[1])
    return found
