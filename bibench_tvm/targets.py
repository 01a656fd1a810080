"""`python -m bibench_tvm.targets`: the names that --target takes, or the boards at a tracker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from bibench_tvm.console import AsJson, Debug, print_json, reporting, run_command
from bibench_tvm.errors import BibenchError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def targets(
    tracker: Annotated[str, typer.Option(help="HOST:PORT: list the boards at this tracker instead.")] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the processors that have a name here; TVM's own target tags are taken too."""
    with reporting(as_json=as_json, debug=debug):
        from rich.console import Console
        from rich.table import Table

        if tracker:
            boards = _boards(tracker)
            if as_json:
                print_json({"tracker": tracker, "boards": boards})
                return
            titles = ["key", "state", "cpu", "cores", "memory", "clock governor", "features", "address"]
            table = Table(*titles, box=None)
            for board in boards:
                table.add_row(
                    board["key"],
                    "free" if board["free"] else "busy",
                    f"{board['cpu']} (emulated)" if board["emulated"] else board["cpu"],
                    str(board["cores"] or "unknown"),
                    f"{board['memory_bytes'] / 2**30:.1f} GiB" if board["memory_bytes"] else "unknown",
                    board["governor"] or "unknown",
                    " ".join(board["features"]),
                    board["address"],
                )
            if boards:
                Console(markup=False).print(table)
            else:
                print(f"No board is registered at {tracker}.")
            return
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


def _boards(tracker: str) -> list[dict[str, Any]]:
    from rpc.boards import RemoteError, list_boards
    from rpc.wire import parse_address, show

    try:
        boards = list_boards(parse_address(tracker))
    except RemoteError as problem:
        raise BibenchError(str(problem)) from problem
    return [{**asdict(board), "address": show(board.address)} for board in boards]


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.targets")
