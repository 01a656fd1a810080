"""How the benchmarks print what they measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from bibench_tvm.cli.console import stderr

_COLOURS = {"aim": "green", "must": "yellow", "missed": "red"}


def promised(figure: Mapping[str, Any]) -> tuple[str, str, Text]:
    """The cells for must, aim and what was reached; empty where nothing was promised."""
    if "must" not in figure:
        return "", "", Text()
    reached = figure["reached"]
    return f"{figure['must']:g}", f"{figure['aim']:g}", Text(reached, _COLOURS[reached])


def show(table: Table) -> None:
    stderr.width = max(stderr.width, 120)  # a file has no width, and rich takes 80 for it
    stderr.print(table)
