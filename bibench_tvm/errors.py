"""What goes wrong in a way that the user can do something about. The message is a sentence for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BibenchError(Exception):
    """The work failed: exit code 1."""


class UsageError(BibenchError, ValueError):
    """What was asked for is wrong: exit code 2, as any ValueError."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A sentence with the names nearest to one that does not exist."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known are {', '.join(names)}."
    return UsageError(f"There is no {kind} {name!r}. {hint}")
