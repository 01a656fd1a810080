"""What goes wrong in a way that the user can do something about. The message is a sentence for the user."""

from __future__ import annotations

import difflib
import numbers
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class BibenchError(Exception):
    """The work failed: exit code 1."""


class UsageError(BibenchError, ValueError):
    """What was asked for is wrong: exit code 2, as any ValueError."""


def as_path(value: Any, what: str) -> Path:
    """Raises UsageError for what is no path, and for an empty one, which would be the current folder."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise UsageError(f"{what} should be a path, and is {value!r}.")
    return Path(value)


def refuse_no_count(value: Any, what: str) -> None:
    """Raise UsageError for what is no whole number."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise UsageError(f"{what} should be a whole number, and is {value!r}.")


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A sentence with the names nearest to one that does not exist."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known are {', '.join(names)}."
    return UsageError(f"There is no {kind} {name!r}. {hint}")


_LONGEST_REASON = 160
_NOISE = re.compile(
    r"Traceback|File |class |def |return |During handling|The above exception|Stack trace"
    r"|\[\d+:\d+|[#@^~|(]|\.\.\.|\d+: "
)
# Intermediate code, addresses and file names mean nothing to who only wants to compile a network.
_INSIDE = re.compile(
    r"\b[RTI]\.\w+|metadata\[|0x[0-9a-f]{4,}|%\w+ *[:=]|(?:[A-Za-z]:)?(?:[/\\][\w.+-]+){2,}"
    r"|\b(tvm|ffi|at|c10|std|relax|tirx)(::|\.)\w"
)


def first_line(error: BaseException) -> str:
    """What another library's error says, as the end of a sentence: its first one, if a person can read it.

    --debug shows the whole.
    """
    for line in str(error).splitlines():
        text = re.sub(r"^(\w+Error: *)?(Check failed: \(.*\) is false: *)?", "", line.strip())
        if not text or _NOISE.match(text):
            continue
        sentence = re.split(r"(?<=[.!?])\s", text)[0]
        if _INSIDE.search(sentence) or len(sentence) > _LONGEST_REASON:
            break
        return sentence if sentence.endswith((".", "!", "?")) else sentence.rstrip(":;,") + "."
    return f"{type(error).__name__}; --debug shows all of it."
