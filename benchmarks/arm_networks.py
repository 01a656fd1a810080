"""`python -m benchmarks.arm_networks`: where the instructions of a network go on Arm, and its time here.

Executed instructions on an emulated Cortex-A72, exact, of layers in bits, of layers of numbers, and of glue,
which is no layer; beside them the shares of the time on this machine. An instruction is no cycle: a square
root takes many.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks import goals
from benchmarks.emulation import emulating
from benchmarks.shapes import chosen
from benchmarks.shares import KINDS, shares, timed
from benchmarks.tables import tell
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting

if TYPE_CHECKING:
    from rpc.session import Board

COUNTED_ON, CPU = "rpi4b", "cortex-a72"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def arm_networks_command(
    networks: Annotated[str, typer.Option(help=f"Of {', '.join(goals.MIXED)}.")] = ",".join(goals.MIXED),
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Count the instructions of whole networks on an emulated Cortex-A72, by kind of kernel."""
    with reporting(as_json=as_json, debug=debug):
        from rpc.local_board import local_board
        from rpc.session import session

        report: dict[str, Any] = {}
        with emulating(), local_board(emulate=CPU) as (tracker, key):
            for name in chosen("network", networks, tuple(goals.MIXED)):
                with session(tracker, key, wait_s=60, limit_s=3600) as board:
                    report[name] = _counted(name, board)
        tell(report, _tables(report), as_json)


def _counted(name: str, board: Board) -> dict[str, Any]:
    from benchmarks import networks
    from bibench_tvm import compile_model
    from bibench_tvm.measuring.measure import measure

    network, x = networks.network(name, binary=True)
    with tempfile.TemporaryDirectory() as folder:
        on_arm, here = Path(folder, "arm"), Path(folder, "host")
        artifact = compile_model(network, x, target=COUNTED_ON, out=on_arm)
        compile_model(network, x, target="host", out=here)
        found = measure(artifact, board, images="It was not asked for.", runs=None, progress=phase)
        with phase(f"{name}: time here"):
            calls, _ = timed(here, x.numpy())
    instructions = dict.fromkeys(KINDS, 0.0)
    for layer in found["layers"]:
        instructions["binary" if layer["binarized"] else "float"] += layer["cost"]
    instructions["glue"] = sum(kernel["cost"] for kernel in found["other_kernels"])
    total = sum(instructions.values())
    return {
        "instructions": instructions,
        "of_instructions": {kind: count / total for kind, count in instructions.items()},
        "of_time_here": shares(calls),
        "glue": sorted(found["other_kernels"], key=lambda kernel: -kernel["cost"]),
    }


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    table = Table(
        title=f"Executed instructions on {COUNTED_ON}, emulated: millions, shares, and of the time here"
    )
    for column in ("network", "instructions, M", *KINDS, *(f"{kind}, here" for kind in KINDS)):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, found in report.items():
        both = [found[of][kind] for of in ("of_instructions", "of_time_here") for kind in KINDS]
        total = sum(found["instructions"].values()) / 1e6
        table.add_row(name, f"{total:,.1f}", *(f"{share:.0%}" for share in both))
    yield table


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.arm_networks")
