"""`python -m benchmarks.limit`: how many products a second one core can do when nothing leaves its registers;
see `bibench_tvm.measuring.limit`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.tables import tell
from bibench_tvm.cli.console import AsJson, Debug, reporting
from bibench_tvm.measuring.limit import ROOFS, products_a_call, roof

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def limit_command(
    repeats: Annotated[int, typer.Option(min=1, max=10_000, help="Rounds; the median is what counts.")] = 15,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure what one core of this machine can do in its registers, in G products a second."""
    with reporting(as_json=as_json, debug=debug):
        from benchmarks.timing import Timing, burst_of
        from bibench_tvm.compiling.processors import resolve_target
        from bibench_tvm.measuring.turns import calls_within, rounds, spread

        target = resolve_target("host")
        bursts = {kind: burst_of(roof(kind, target)) for kind in ROOFS}
        turns = {kind: partial(burst, calls_within(burst, 0.02)) for kind, burst in bursts.items()}
        rates = {
            kind: spread([products_a_call(kind, target) / s / 1e9 for s in Timing.of(costs).cpu])
            for kind, costs in rounds(turns, repeats).items()
        }
        table = Table(title=f"One core ({target.cpu}, kernels of {target.kernels.name}), G products a second")
        for column in ("in registers", "median", "quartiles"):
            table.add_column(column)
        for kind, rate in rates.items():
            between = f"{rate['low']:,.0f} to {rate['high']:,.0f}"
            table.add_row(f"{kind}: {ROOFS[kind]}", f"{rate['median']:,.0f}", between)
        found = {"cpu": target.cpu, "kernels": target.kernels.name, "gmacs_per_s": rates}
        tell(found, [table], as_json)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.limit")
