"""`python -m bibench_tvm.tracks`: the six tracks, run, checked and shown; and the paper's own figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting, results, run_command
from bibench_tvm.cli.errors import UsageError, unknown
from bibench_tvm.tracks import own

if TYPE_CHECKING:
    from rich.console import Console

    from bibench_tvm.tracks.metrics import Reading
    from bibench_tvm.tracks.recompute import Comparison, Count

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def tracks() -> None:
    """The six tracks of BiBench. Every command takes --json and --debug."""


for command in (own.run, own.status, own.check, own.export):
    app.command()(command)


@app.command()
def table(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The folder of the results.")] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Tables 2 and 3 of the BiBench paper, printed and recomputed.")
    ] = False,
    reading: Annotated[
        str, typer.Option(help="paper: as its numbers come out; equation: as the equations say.")
    ] = "paper",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """The overall metrics of one's own results; or the paper's, recomputed from its detailed tables."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.tracks.metrics import READINGS

        if folder is None and not paper:
            raise UsageError("Give the folder of the results, or --paper for those of the paper, or both.")
        chosen = {name: name for name in READINGS}.get(reading)  # type: ignore[call-overload]
        if chosen is None:
            raise unknown("reading", reading, READINGS)
        found: dict[str, Any] = {}
        if folder is not None:
            found |= own.show_own(folder, results(as_json))
        if paper:
            found |= _show_paper(chosen, results(as_json))
        if as_json:
            print_json(found)
        own.end(found.get("left_out", []))


@app.command()
def structure(
    name: Annotated[str, typer.Argument(metavar="KIND", help="cnn, transformer or mlp.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """What binarization does to a local structure, without training: table 7 of the paper."""
    with reporting(as_json=as_json, debug=debug):
        import statistics

        from bibench_tvm.tracks.structure import STRUCTURES, binarization_error

        if name not in STRUCTURES:
            raise unknown("structure", name, STRUCTURES)
        errors = binarization_error(STRUCTURES[name])
        mean = statistics.fmean(errors.values())
        results(as_json).print(f"{name}: binarization error {mean:.3f}, the mean over {len(errors)} sizes")
        if as_json:
            sizes = [
                {"extent": extent, "width": width, "error": error}
                for (extent, width), error in errors.items()
            ]
            print_json({"structure": name, "error": mean, "sizes": sizes})


def _show_paper(reading: Reading, console: Console) -> dict[str, Any]:
    import msgspec

    from bibench_tvm.tracks.recompute import count, recompute

    compared = recompute(reading)
    counts = count(compared)
    _show(console, compared, counts)
    numbers = [{**msgspec.to_builtins(one), "difference": one.difference} for one in compared]
    return {"reading": reading, "counts": msgspec.to_builtins(counts), "numbers": numbers}


def _show(found: Console, compared: tuple[Comparison, ...], counts: tuple[Count, ...]) -> None:
    from rich.table import Table

    from bibench_tvm.tracks.paper import ALGORITHMS

    by_track: dict[str, dict[str, list[Comparison]]] = {}
    for one in compared:
        by_track.setdefault(one.track, {}).setdefault(one.metric, []).append(one)
    for track, metrics in by_track.items():
        shown = Table(
            title=track.replace("_", " "),
            title_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        shown.add_column("", min_width=12)
        for algorithm in ALGORITHMS:
            shown.add_column(algorithm, justify="right", min_width=7)
        for metric, row in metrics.items():
            shown.add_row(metric, *(_number(one.printed) + " " for one in row))
            shown.add_row("", *(_number(one.recomputed) + _mark(one) for one in row))
        found.print(shown)
    found.print("The upper number is printed, the lower recomputed: * differs, = taken as printed.")
    for group in counts:
        what = f"{group.track} {group.metric}".strip().replace("_", " ")
        found.print(f"Equation {group.equation}, {what}: {group.equal} of {group.of} as printed.")
    notes: dict[str, dict[str, None]] = {}
    for one in compared:
        if one.note:
            notes.setdefault(one.note, {})[f"{one.track} {one.metric}".replace("_", " ")] = None
    for note, columns in notes.items():
        found.print(f"{', '.join(columns)}: {note}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _mark(one: Comparison) -> str:
    if one.equal is None:
        return "=" if one.recomputed is not None else " "
    return " " if one.equal else "*"


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.tracks")
