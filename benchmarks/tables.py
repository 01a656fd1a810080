"""How the benchmarks print what they measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bibench_tvm.cli.console import print_json, results

_COLOURS = {"aim": "green", "must": "yellow", "missed": "red"}


def promised(figure: Mapping[str, Any]) -> tuple[str, str, Text]:
    """The cells for must, aim and what was reached; empty where nothing was promised."""
    if "must" not in figure:
        return "", "", Text()
    reached = figure["reached"]
    return f"{figure['must']:g}", f"{figure['aim']:g}", Text(reached, _COLOURS[reached])


def tell(found: dict[str, Any], tables: Iterable[Table], as_json: bool) -> None:
    """Print what a benchmark found to standard output: its tables, or one object with these beside it."""
    shared = results(as_json)
    width = max(shared.width, 120)  # a file has no width, and rich takes 80 for it
    console = Console(file=shared.file, width=width, highlight=False, markup=False)
    for table in tables:
        console.print(table)
    if as_json:
        print_json(found)
