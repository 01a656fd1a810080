"""The commands of `python -m bibench_tvm.tracks` on one's own results: run, status, check, export."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_tvm.cli.console import (
    MOST_THREADS,
    AsJson,
    Debug,
    Tracker,
    print_json,
    refuse_tracker_alone,
    reporting,
    results,
    stderr,
)
from bibench_tvm.cli.errors import unknown
from bibench_tvm.importer.own_algorithm import Mine, kept_algorithm, own_algorithm

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bibench_tvm.tracks.deployment import Deployment
    from bibench_tvm.tracks.overall import Row

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the results.")]
Several = list[str] | None


def run(
    folder: Folder,
    profile: Annotated[str, typer.Option(help="quick, standin or paper.")] = "quick",
    track: Annotated[Several, typer.Option(help="Only this track; may be repeated.")] = None,
    task: Annotated[Several, typer.Option(help="Only this task; may be repeated.")] = None,
    arch: Annotated[Several, typer.Option(help="Only this network; may be repeated.")] = None,
    algorithm: Annotated[
        Several,
        typer.Option(help="Only this algorithm, beside fp32; may be repeated. Or all: the paper's eight."),
    ] = None,
    mine: Mine = None,
    board: Annotated[
        Several,
        typer.Option(
            help="A board for inference beside this machine, KEY, adb:SERIAL or ssh:HOST; may be repeated."
        ),
    ] = None,
    tracker: Tracker = "",
    cores: Annotated[
        int | None, typer.Option(min=1, max=MOST_THREADS, help="Jobs at a time. Default: all cores.")
    ] = None,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Run the jobs that time nothing on this Ray cluster.")
    ] = "",
    limit: Annotated[
        float | None,
        typer.Option(
            min=1, max=31_536_000, help="Seconds that a job may take. Default: as the profile says."
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run what is missing of a profile; stopped or killed, the same command goes on."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.jobs.cluster import ray_cluster
        from bibench_tvm.jobs.progress import shown
        from bibench_tvm.tracks.plan import Filter, Plan, places_of
        from bibench_tvm.tracks.profiles import PROFILES
        from bibench_tvm.tracks.results import TRACKS
        from bibench_tvm.tracks.runner import run_plan

        if profile not in PROFILES:
            raise unknown("profile", profile, PROFILES)
        for name in track or []:
            if name not in TRACKS:
                raise unknown("track", name, TRACKS)
        refuse_tracker_alone(tracker, board)
        here = len(os.sched_getaffinity(0))
        wanted = Filter(
            tracks=tuple(track or ()),
            tasks=tuple(task or ()),
            archs=tuple(arch or ()),
            algorithms=tuple(name for name in algorithm or () if name != "all"),
        )
        with own_algorithm(kept_algorithm(mine, folder) if mine else None) as own:
            items = Plan(
                name=profile,
                profile=PROFILES[profile],
                folder=folder,
                places=places_of(board or (), tracker, here),
                wanted=wanted,
                own=own,
                limit=limit,
            ).items()
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(ray_cluster(ray)) if ray else None
            advance = stack.enter_context(shown(f"{len(items)} jobs", len(items)))
            outcomes = run_plan(items, folder, cores=cores or here, cluster=cluster, advance=advance)
        states = [outcome.state for outcome in outcomes]
        counts = {state: states.count(state) for state in dict.fromkeys(states)}
        failed = {o.name: o.reason for o in outcomes if o.state != "done"}
        results(as_json).print(", ".join(f"{count} {state}" for state, count in counts.items()))
        for name, reason in failed.items():
            results(as_json).print(f"{name}: {reason}", soft_wrap=True)
        if as_json:
            print_json({"folder": str(folder), "profile": profile, "jobs": counts, "failed": failed})
        if failed:
            raise typer.Exit(1)


def status(folder: Folder, as_json: AsJson = False, debug: Debug = False) -> None:
    """What is there: results by track, and the jobs that failed, with their reasons."""
    with reporting(as_json=as_json, debug=debug):
        from rich.box import SIMPLE
        from rich.table import Table

        from bibench_tvm.jobs.job import outcomes_in
        from bibench_tvm.tracks.plan import JOBS
        from bibench_tvm.tracks.results import TRACKS, read_all

        found, left_out = read_all(folder)
        counts = {track: sum(result.key.track == track for result in found) for track in TRACKS}
        failed = {o.name: o.reason for o in outcomes_in(folder / JOBS) if o.state == "failed"}
        table = Table("track", "results", box=SIMPLE)
        for track, count in counts.items():
            table.add_row(track, str(count))
        results(as_json).print(table)
        for name, reason in failed.items():
            results(as_json).print(f"{name} failed: {reason}", soft_wrap=True)
        if as_json:
            print_json({"folder": str(folder), "results": counts, "failed": failed, "left_out": left_out})
        end(left_out)


def check(
    folder: Folder,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail too where a comparison lacks something, or mixes.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read every result, and name what cannot be right, what is missing, and what does not go together."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.tracks import check as checks

        found = checks.check(folder)
        results(as_json).print(
            f"{len(found.results)} results, {len(found.at_fault)} at fault, "
            f"{len(found.missing)} figures missing."
        )
        missing = [f"Missing in {name}" for name in found.missing]
        for sentence in [*found.at_fault, *missing, *found.mixed]:
            results(as_json).print(sentence, soft_wrap=True)
        if as_json:
            lists = {"at_fault": found.at_fault, "missing": found.missing, "mixed": found.mixed}
            print_json({"results": len(found.results), **lists})
        if found.at_fault or (strict and (found.missing or found.mixed)):
            raise typer.Exit(1)


def export(folder: Folder, as_json: AsJson = False, debug: Debug = False) -> None:
    """Print every figure of every result: as CSV, or with --json as one object."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.tracks.results import read_all, rows

        whole, left_out = read_all(folder)
        found = rows(whole)
        if as_json:
            print_json({"figures": found, "left_out": left_out})
        elif found:
            writer = csv.DictWriter(sys.stdout, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
        end(left_out)


def end(left_out: Sequence[str]) -> None:
    """Name the files that a command left out: it went on with the others, and what it found is not all."""
    for sentence in left_out:
        stderr.print(f"Error: {sentence}", style="red", soft_wrap=True)
    if left_out:
        raise typer.Exit(1)


def show_own(folder: Path, console: Console) -> dict[str, Any]:
    """The overall metrics of each profile that has results, as tables and as what --json prints of them, with
    sentences on the files that were left out as "left_out"."""
    import msgspec

    from bibench_tvm.tracks.check import faults
    from bibench_tvm.tracks.deployment import deployments
    from bibench_tvm.tracks.overall import overall, unknown_task
    from bibench_tvm.tracks.results import by_profile, read_all

    everything, left_out = read_all(folder)
    if wrong := sum(any(faults(result)) for result in everything):
        console.print(
            f"{wrong} results have what cannot be right: `tracks check {folder}` says what.", style="yellow"
        )
    for strange in dict.fromkeys(filter(None, (unknown_task(result.key) for result in everything))):
        console.print(
            f"The task {strange} is not known here, and in no overall metric.", style="yellow", soft_wrap=True
        )
    shown = {}
    for profile, own in by_profile(everything).items():
        shown[profile] = overall(own)
        stand_in = any(figure.kind == "stand-in" for result in own for figure in result.figures)
        console.print(
            f"Profile {profile}{', with stand-ins' if stand_in else ''}: percent of the float network, "
            "factors in complexity and inference.",
            soft_wrap=True,
        )
        console.print(_table(shown[profile]))
        for row in shown[profile]:
            if row.missing:
                count = len(row.missing)
                first = ", ".join(row.missing[:3]) + (" …" if count > 3 else "")
                console.print(f"{row.track}, {row.algorithm}: {count} missing: {first}", soft_wrap=True)
        for track, empty in {row.track: row.empty for row in shown[profile] if row.empty}.items():
            console.print(f"{track}: the profile has no {' and no '.join(empty)}.", soft_wrap=True)
    deployed = deployments(everything)
    if deployed:
        console.print(_deployment_table(deployed))
    lists = {"profiles": msgspec.to_builtins(shown), "deployment": msgspec.to_builtins(deployed)}
    return {"folder": str(folder), **lists, "left_out": left_out}


def _deployment_table(deployed: list[Deployment]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE)
    for column in ("deployed by", "Larq or daBNN, in the paper", "here: networks", "layers on bits"):
        table.add_column(column, overflow="fold")
    for one in deployed:
        table.add_row(
            one.algorithm,
            {True: "yes", False: "no", None: "-"}[one.in_paper],
            str(one.networks),
            f"{one.binary} of {one.layers}",
        )
    return table


def _table(rows: list[Row]) -> Table:
    """A row for each part of a track, a column for each algorithm."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    algorithms = list(dict.fromkeys(row.algorithm for row in rows))
    table.add_column("", no_wrap=True)
    for algorithm in algorithms:
        table.add_column(algorithm, justify="right", overflow="fold", min_width=6)
    for track in dict.fromkeys(row.track for row in rows):
        own = {row.algorithm: row for row in rows if row.track == track}
        table.add_row(track, *(_number(own[a].overall.value) for a in algorithms), style="bold")
        for part in dict.fromkeys(name for row in own.values() for name in row.parts):
            parts = [own[a].parts.get(part) for a in algorithms]
            table.add_row(f"  {part}", *(_number(p.value if p else None) for p in parts))
    return table


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
