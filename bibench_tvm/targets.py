"""`python -m bibench_tvm.targets`: the names that --target takes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from bibench_tvm.console import print_json, reporting, stderr
from bibench_tvm.presets import PRESETS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def targets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output.")] = False,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """List the processors that have a name here; TVM's own target tags are taken too."""
    with reporting(as_json=as_json, debug=debug):
        table = Table()
        for column in ("name", "what it is", "cpu", "features", "triple"):
            table.add_column(column)
        table.add_row("host", "this machine", "", "", "")
        for name, preset in PRESETS.items():
            table.add_row(name, preset.description, preset.cpu, " ".join(preset.features), preset.triple)
        stderr.print(table)
        if as_json:
            print_json({"targets": [{"name": name, **vars(preset)} for name, preset in PRESETS.items()]})


if __name__ == "__main__":
    app(prog_name="python -m bibench_tvm.targets")
