"""`python -m bibench_tvm.targets`: the names that --target takes."""

from __future__ import annotations

import typer

from bibench_tvm.console import AsJson, Debug, print_json, reporting, run_command

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def targets(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the processors that have a name here; TVM's own target tags are taken too."""
    with reporting(as_json=as_json, debug=debug):
        from rich.console import Console
        from rich.table import Table

        from bibench_tvm.presets import PRESETS

        if as_json:
            presets = [{"name": name, **vars(preset)} for name, preset in PRESETS.items()]
            print_json({"targets": [{"name": "host", "description": "this machine"}, *presets]})
            return
        table = Table("name", "what it is", "cpu", "features", box=None)
        table.add_row("host", "this machine")
        for name, preset in PRESETS.items():
            table.add_row(name, preset.description, preset.cpu, " ".join(preset.features))
        Console(markup=False).print(table)


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.targets")
