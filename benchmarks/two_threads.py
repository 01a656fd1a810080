"""`python -m benchmarks.two_threads`: networks on two threads, and on as many as `load` finds, beside one.

What a machine has to give is seen from two processes that run the network side by side, on a thread each. All
are timed by the wall, by `run`, in turns; ratios are within a round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.goals import TWO_THREADS, Goal
from benchmarks.shapes import chosen
from benchmarks.tables import promised, tell
from benchmarks.workers import Worker
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting
from bibench_tvm.measuring.turns import Costs, ratios, rounds, spread

NETWORKS = ("resnet18", "resnet20", "vgg_small", "fsmn")
LARGE = ("resnet18",)  # whose kernels are worth sharing; the others must not lose by it
NO_LOSS = Goal(1.0, 1.0)
WHOLE = 1.9  # of two processes, where the goals are met in full
_BURST_S = 0.2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def two_threads_command(
    networks: Annotated[str, typer.Option(help=f"Of {', '.join(NETWORKS)}.")] = ",".join(NETWORKS),
    repeats: Annotated[
        int, typer.Option("--rounds", min=3, max=10_000, help="How often each takes its turn.")
    ] = 15,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time networks on one thread, on two, as load decides, and two processes of one thread each."""
    with reporting(as_json=as_json, debug=debug):
        report = {}
        for name in chosen("network", networks, NETWORKS):
            with tempfile.TemporaryDirectory() as scratch, phase(f"{name}: compiling and timing"):
                report[name] = figures(name, _measured(Path(scratch, name), name, repeats))
        tell(report, _tables(report, repeats), as_json)


def _measured(case: Path, name: str, repeats: int) -> dict[str, list[float]]:
    """Wall seconds of a run, one for each round; of two processes, half the time in which they make two."""
    from benchmarks import prepare

    prepare.prepare_ours(case, name)
    workers = {"one": Worker(1), "other": Worker(1), "two": Worker(2), "left to load": Worker(0)}
    try:
        for worker in workers.values():
            worker.open(name, "contestant", "ours", str(case), seconds=_BURST_S)
        turns: dict[str, Callable[[], Costs]] = {
            title: partial(worker.burst, name) for title, worker in workers.items() if title != "other"
        }
        pair = workers["one"], workers["other"]
        turns["two processes"] = lambda: (side_by_side([partial(worker.burst, name) for worker in pair]),)
        return {title: [c[-1] for c in costs] for title, costs in rounds(turns, repeats).items()}
    finally:
        for worker in workers.values():
            worker.close()


def side_by_side(bursts: list[Callable[[], Costs]]) -> float:
    """Seconds for each run that comes out, where all of these run at once."""
    with ThreadPoolExecutor(len(bursts)) as threads:
        costs = [future.result() for future in [threads.submit(burst) for burst in bursts]]
    return 1 / sum(1 / cost[-1] for cost in costs)


def figures(name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """How many times as fast as on one thread; what is promised, where two processes reach less, is less."""
    faster = {title: ratios(seconds["one"], took) for title, took in seconds.items() if title != "one"}
    goal = NO_LOSS
    if name in LARGE:
        share = min(1.0, faster["two processes"]["median"] / WHOLE)
        goal = Goal(round(TWO_THREADS.must * share, 2), round(TWO_THREADS.aim * share, 2))
    best = max(faster[title]["median"] for title in ("two", "left to load"))
    return {"one_ms": spread(seconds["one"], 1e3), "faster": faster, **goal.promised(best)}


def _tables(report: dict[str, Any], repeats: int) -> Iterator[Table]:
    table = Table(title=f"By run, wall time of one thread / of …, medians and quartiles of {repeats} rounds")
    columns = ("one thread, ms", "two threads", "left to load", "two processes", "must", "aim", "")
    for column in ("network", *columns):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, found in report.items():
        cells = [
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            for ratio in found["faster"].values()
        ]
        table.add_row(name, f"{found['one_ms']['median']:.3f}", *cells, *promised(found))
    yield table


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.two_threads")
