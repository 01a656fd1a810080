"""`python -m bibench_tvm.summary [MODEL | --arch A --algorithm B]`: parameters, bits and operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting, results, run_command
from bibench_tvm.compile import Algorithm, Checkpoint, InputShape, Model, Variant
from bibench_tvm.importer.own_algorithm import Mine, own_algorithm

if TYPE_CHECKING:
    from rich.console import Console

    from bibench_tvm.tracks.complexity import Complexity, Summary

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


Arch = Annotated[str | None, typer.Option(help="This network of ours, or what a state dict is of.")]


@app.command()
def summary(
    model: Model = None,
    arch: Arch = None,
    algorithm: Algorithm = None,
    variant: Variant = None,
    mine: Mine = None,
    checkpoint: Checkpoint = None,
    input_shape: InputShape = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Parameters, bits and operations of a network in theory, layer by layer, without training it."""
    with reporting(as_json=as_json, debug=debug), own_algorithm(mine):
        import msgspec
        import torch

        from bibench_tvm.importer.source import named
        from bibench_tvm.tracks.complexity import summarize

        with torch.device("meta"):  # the weights of a named network are not wanted
            network = named(model, checkpoint, arch, algorithm, variant, input_shape or [])
        found = summarize(network)
        _show(results(as_json), found)
        if as_json:
            paper = found.as_the_paper_counts
            counted = paper and {"compression": paper.compression, "speedup": paper.speedup}
            print_json(
                {
                    "model": found.model,
                    "algorithm": found.algorithm,
                    **msgspec.to_builtins(found.complexity),
                    "as_the_paper_counts": counted,
                }
            )


def _show(console: Console, found: Summary) -> None:
    from rich.table import Table

    whole = found.complexity
    algorithm = f", {found.algorithm}" if found.algorithm else ""
    table = Table(title=f"{found.model}{algorithm}", box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("binary")
    for column in ("parameters", "bits", "M products", "M scales"):
        table.add_column(column, justify="right")
    for layer in whole.layers:
        table.add_row(
            layer.name,
            layer.op,
            "yes" if layer.binary else "no",
            _count(layer.parameters),
            _count(layer.bits),
            _millions(layer.operations),
            _millions(layer.scale_operations),
        )
    outside = whole.parameters_outside
    bits = None if outside is None else 32 * outside
    table.add_row("outside the layers", "", "", _count(outside), _count(bits), "", "")
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for layer in whole.layers:
        if layer.reason:
            reasons.setdefault(layer.reason, []).append(layer.name)
    for reason, names in reasons.items():
        console.print(f"{', '.join(names)}: in float, as {reason}.")
    _show_totals(console, whole, found.as_the_paper_counts)


def _show_totals(console: Console, whole: Complexity, paper: Complexity | None) -> None:
    floats = None if whole.parameters is None else 32 * whole.parameters
    console.print(
        f"{_count(whole.parameters)} parameters: {_count(whole.bits)} bits, and {_count(floats)} as float32."
    )
    console.print(
        f"{_millions(whole.binary_operations)} million products of bits in a run, and "
        f"{_millions(whole.float_operations)} million others: as many as {_millions(whole.operations)} "
        "million, 64 of bits being one."
    )
    console.print(
        f"Compression {_ratio(whole.compression)}, speed-up {_ratio(whole.speedup)}."
        + (
            f" As the BiBench paper counts: {_ratio(paper.compression)}, {_ratio(paper.speedup)}."
            if paper
            else " Where there is a ?, a file of this kind does not say."
        )
    )


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _millions(value: float | None) -> str:
    return "?" if value is None else f"{value / 1e6:,.3f}"


def _ratio(value: Any) -> str:
    return "?" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.summary")
