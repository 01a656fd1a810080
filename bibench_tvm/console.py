"""What every command shares: progress on standard error, one JSON object on standard output, exit codes."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console

from bibench_tvm.errors import BibenchError, UsageError

stderr = Console(stderr=True, highlight=False)


def print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def reporting(*, as_json: bool, debug: bool) -> Iterator[None]:
    """Turn what goes wrong into a sentence and an exit code: 2 for wrong arguments, 1 for work that failed.

    ValueError counts as wrong arguments: the packages below raise it for what the user named or gave them.
    """
    try:
        yield
    except (KeyboardInterrupt, typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        code = 2 if isinstance(error, (UsageError, ValueError)) else 1
        if isinstance(error, (BibenchError, ValueError, OSError)):
            sentence = str(error)
        else:
            first = (str(error).strip() or "no message").splitlines()[0]
            sentence = f"This is a fault of the program ({type(error).__name__}: {first}). --debug shows where."
        stderr.print(f"[red]Error:[/red] {_plain(sentence)}", soft_wrap=True)
        if as_json:
            print_json({"error": sentence})
        raise typer.Exit(code) from None


def _plain(text: str) -> str:
    """Square brackets in a message are not markup."""
    return text.replace("[", r"\[")


@contextlib.contextmanager
def phase(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    start = time.monotonic()
    with stderr.status(what):
        yield
    stderr.print(f"[dim]{time.monotonic() - start:6.1f} s[/dim]  {_plain(what)}")
