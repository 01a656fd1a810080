"""`python -m bibench_tvm.targets`: the names that --target takes, or the boards at a tracker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting, run_command
from bibench_tvm.cli.errors import BibenchError
from rpc.listing import BoardInfo, RemoteError, list_boards
from rpc.wire import parse_address, show

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
            try:
                boards = list_boards(parse_address(tracker))
            except RemoteError as problem:
                raise BibenchError(str(problem)) from problem
            if as_json:
                listed = [{**asdict(board), "address": show(board.address)} for board in boards]
                print_json({"tracker": tracker, "boards": listed, "left_out": boards.left_out})
                return
            width = max((len(board.key) for board in boards), default=0)
            for board in boards:
                print(f"{board.key:{width}}  {'free' if board.free else 'busy'}  {_described(board)}")
            if boards.left_out:
                what = "said too much of itself, or what makes no sense"
                print(f"Left out: {boards.left_out} that {what}.")
            elif not boards:
                print(f"No board is registered at {tracker}.")
            return
        from bibench_tvm.artifact.host import VARIABLE, lowered_to
        from bibench_tvm.compiling.processors import PRESETS, resolve_target

        host = resolve_target("host")
        what = (
            f"this machine, taken for {lowered} by {VARIABLE}"
            if (lowered := lowered_to())
            else "this machine"
        )
        if as_json:
            here = {"name": "host", "description": what, "cpu": host.cpu, "features": host.features}
            presets = [{"name": name, **vars(preset)} for name, preset in PRESETS.items()]
            print_json({"targets": [here, *presets]})
            return
        table = Table("name", "what it is", "cpu", "features", box=None)
        table.add_row("host", what, host.cpu, " ".join(host.features))
        for name, preset in PRESETS.items():
            table.add_row(name, preset.description, preset.cpu, " ".join(preset.features))
        Console(markup=False).print(table)


def _described(board: BoardInfo) -> str:
    parts = [f"{board.cpu} (emulated)" if board.emulated else board.cpu]
    if board.cores:
        parts += [f"{board.cores} core{'s' * (board.cores != 1)}", f"{board.memory_bytes / 2**30:.1f} GiB"]
    if board.governor:
        parts.append(f"clock governor {board.governor}")
    return ", ".join([*parts, " ".join(board.features), f"at {show(board.address)}"])


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.targets")
