"""`python -m benchmarks.peers`: the same layers and networks in every library, in turns, as ratios.

Every library has a process of its own. They take turns: in each round, each contestant of a case runs one
burst while all others wait, and the ratio to ours is taken within the round, so that what the machine does
meanwhile touches both. What is timed is the call that a user makes, arrays in and arrays out, and beside it
the network alone, with its inputs in place, against ours alone. On one thread the ratios are of processor
time, on more of wall time. Outputs are checked before anything is timed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks import goals
from benchmarks.contestants import ALONE, PEERS
from benchmarks.goals import Goal
from benchmarks.shapes import EXTRA, LAYERS, NETWORKS, chosen
from benchmarks.tables import promised, tell
from benchmarks.timing import Timing
from benchmarks.workers import Failed, Worker, missing
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting, stderr
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.measuring.peers import onnx_runtime
from bibench_tvm.measuring.turns import Costs, Entry, Turns, ratios, rounds, spread

BURST_S = 0.02
PIP = "pip install -c constraints.txt "
INT8 = ("OpenVINO int8", "ONNX Runtime int8")
LAST = "ours, channels last"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Measurement:
    """The processes of all libraries."""

    def __init__(self, threads: int, repeats: int):
        self.threads, self.repeats = threads, repeats
        self.workers: dict[str, Worker] = {}

    def worker(self, name: str, threads: int | None = None) -> Worker:
        if name not in self.workers:
            self.workers[name] = Worker(threads or self.threads)
        return self.workers[name]

    def open(self, name: str, key: str, how: str, *arguments: str, threads: int | None = None) -> Entry:
        """What a worker opens, and whose burst is a turn there. Raises Failed."""
        worker = self.worker(name, threads)
        with self._fatal(name, worker):
            about = worker.open(key, how, *arguments, seconds=BURST_S)

        def turn() -> Costs:
            with self._fatal(name, worker):
                return worker.burst(key)

        return Entry(turn, about)

    @contextlib.contextmanager
    def _fatal(self, name: str, worker: Worker) -> Iterator[None]:
        """A process that ended gets no further work: the next of this library has a new one."""
        try:
            yield
        except Failed as failure:
            if failure.fatal and self.workers.get(name) is worker:
                self.workers.pop(name).close()
            raise

    def seconds(self, timing: Timing) -> list[float]:
        return timing.cpu if self.threads == 1 else timing.wall

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


@app.command()
def peers_command(
    layers: Annotated[
        str, typer.Option(help="A,B,C,D; with extra, the rates of odd shapes and of all layers.")
    ] = "A,B,C,D",
    networks: Annotated[
        str,
        typer.Option(help="Of resnet18, resnet34, vgg_small and the mixed ones (bert_tiny4 …); '' for none."),
    ] = ",".join([*NETWORKS, *goals.MIXED]),
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="For each library; 2 or more are timed by the wall.")
    ] = 1,
    repeats: Annotated[
        int, typer.Option(min=1, max=10_000, help="Rounds, over which medians and quartiles are.")
    ] = 15,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time ours beside ONNX Runtime, OpenVINO, PyTorch and TVM's own bit-serial kernels."""
    with reporting(as_json=as_json, debug=debug):
        picked = chosen("layer", layers, (*LAYERS, "extra"))
        named = chosen("network", networks, (*NETWORKS, *goals.MIXED))
        nets, mixed = ([n for n in named if (n in goals.MIXED) == among] for among in (False, True))
        if not picked and not named:
            raise UsageError("There is nothing to measure: name a layer or a network.")
        absent = {name: PIP + peer.package for name, peer in PEERS.items() if missing(peer.library)}
        for name, line in absent.items():
            stderr.print(f"{name} is not installed. Type: {line}", style="yellow")
        report: dict[str, Any] = {"threads": threads, "repeats": repeats, "not_installed": absent}
        report |= {"figures": [], "layers": {}, "networks": {}, "kernels": {}}
        from bibench_tvm.compiling.processors import resolve_target

        report["kernel_target"] = resolve_target("host").kernels.name
        report["int8_weight_bits"] = 7 if onnx_runtime.saturates_here() else 8
        if report["int8_weight_bits"] == 7:
            stderr.print("int8 has weights of 7 bits: with 8 its kernels saturate on x86 without VNNI.")
        measurement = Measurement(threads, repeats)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                shown = [name for name in picked if name in LAYERS]
                for kind, names in ("layer", shown), ("network", nets), ("mixed", mixed):
                    for name in names:
                        case = Path(scratch) / f"{kind}-{name}"
                        found = _case(measurement, case, kind, name, report)
                        report["layers" if kind == "layer" else "networks"][name] = found
                if shown or "extra" in picked:
                    odd = list(EXTRA) if "extra" in picked else []
                    _kernels(measurement, "layer", [*shown, *odd], report)
                if "extra" in picked:
                    for name in nets:
                        _kernels(measurement, "network", [name], report)
        finally:
            measurement.close()
        tell(report, _tables(report), as_json)


def _case(
    measurement: Measurement, case: Path, kind: str, name: str, report: dict[str, Any]
) -> dict[str, Any]:
    """Prepare, check and time one layer or network; its figures go to `report`."""
    from benchmarks import prepare

    about: dict[str, Any] = {}
    with phase(f"{kind} {name}: exporting, quantizing and compiling"):
        if kind == "layer":
            prepare.prepare_layer(case, LAYERS[name])
        elif kind == "mixed":
            about = prepare.prepare_mixed(case, name)
        else:
            prepare.prepare_network(case, name)
    turns = Turns(tell=lambda title, sentence: stderr.print(f"{title} failed: {sentence}", style="red"))

    def enter(title: str, worker: str, peer: str, threads: int | None = None) -> None:
        key = f"{name} {title}"
        turns.enter(
            title, lambda: measurement.open(worker, key, "contestant", peer, str(case), threads=threads)
        )

    with phase(f"{kind} {name}: checking outputs"):
        for title, peer in PEERS.items():
            if kind == "mixed" and title not in ("ours", goals.FLOAT):
                continue
            if title not in report["not_installed"] and (case / peer.needs).exists():
                enter(title, peer.library, title)
        if kind == "network" and measurement.threads == 1 and (os.cpu_count() or 1) > 1:
            enter("ours on 2 threads", "tvm on 2 threads", "ours", threads=2)
    with phase(f"{kind} {name}: timing", measurement.repeats) as step:
        costs = turns.rounds(measurement.repeats, step)
    if "ours" not in costs:
        return {"failed": turns.failed}
    timings = {title: Timing.of(bursts) for title, bursts in costs.items()}
    _figures(measurement, name, timings, report)
    if kind == "mixed":
        with phase(f"{kind} {name}: kernel by kernel"):
            about |= _shares(measurement, case, name, report)
    times = {title: {**timing.record(), **turns.about[title]} for title, timing in timings.items()}
    return {"times": times, "failed": turns.failed, **about}


def _figures(measurement: Measurement, name: str, timings: dict[str, Timing], report: dict[str, Any]) -> None:
    def figure(title: str, theirs: str, ours: str, goal: Goal | None) -> None:
        pair = [measurement.seconds(timings[t]) for t in (theirs, ours)]
        _figure(report, f"{name}: {title}", ratios(*pair), goal)

    wanted = goals.wanted(name, report["kernel_target"])
    int8 = [title for title in INT8 if title in timings]
    best = min(int8, key=lambda title: spread(measurement.seconds(timings[title]))["median"], default=None)
    for title in PEERS:
        if title in timings and not title.startswith("ours"):
            goal = wanted.get(goals.INT8 if title == best else title)
            ours = f"ours{ALONE}" if title.endswith(ALONE) else "ours"
            if ours in timings:
                figure(f"{title.removesuffix(ALONE)} / {ours}", title, ours, goal)
            if LAST in timings and goal:
                figure(f"{title} / {LAST}", title, LAST, goal)
    if "ours on 2 threads" in timings:
        one, two = timings["ours"].wall, timings["ours on 2 threads"].wall
        goal = goals.TWO_THREADS if name == "resnet18" else None
        _figure(report, f"{name}: ours on 1 thread / on 2, wall time", ratios(one, two), goal)


def _shares(measurement: Measurement, case: Path, name: str, report: dict[str, Any]) -> dict[str, Any]:
    found = measurement.worker("tvm").open("", "shares", str(case), seconds=BURST_S)
    for kind, share in found["shares"].items():
        goal = goals.GLUE if kind == "glue" else None
        _figure(report, f"{name}: {kind}, share of our time", spread([share]), goal)
    if found["of_roof"]:
        layer, share = min(found["of_roof"].items(), key=lambda item: item[1])
        title = f"{name}: {layer}, share of the roof, the least of its layers in bits"
        _figure(report, title, spread([share]), goals.LEAST_OF_ROOF)
    return found


def _kernels(measurement: Measurement, kind: str, names: Sequence[str], report: dict[str, Any]) -> None:
    """The binary kernels alone, a layer's from bits to bits: share of the roof, and of layer C's rate."""
    worker = measurement.worker("tvm")
    turns: dict[str, Callable[[], Costs]] = {}
    macs: dict[str, int] = {}
    titles: dict[str, str] = {}
    slow: list[tuple[float, str, dict[str, float]]] = []
    with phase(f"kernels of {names[0] if len(names) == 1 else f'{len(names)} layers'}"):
        macs["roof"] = worker.open("roof", "roof", "binary", seconds=BURST_S)["macs"]
        turns["roof"] = partial(worker.burst, "roof")
        wanted = [(kind, name) for name in names]
        if ("layer", "C") not in wanted:
            wanted.append(("layer", "C"))
        for what, name in wanted:
            for symbol in worker.open("", "kernels", what, name, seconds=BURST_S):
                key = f"{what} {name} {symbol}"
                opened = worker.open(key, "kernel", what, name, symbol, seconds=BURST_S / 2)
                macs[key] = opened["macs"]
                titles[key] = name if what == "layer" else f"{name} {opened['layer']}"
                turns[key] = partial(worker.burst, key)
        timings = {key: Timing.of(costs) for key, costs in rounds(turns, measurement.repeats).items()}
    per_mac = {key: [s / macs[key] for s in measurement.seconds(t)] for key, t in timings.items()}
    of_c = per_mac[next(key for key in per_mac if key.startswith("layer C "))]
    for key, title in titles.items():
        share, of = ratios(per_mac["roof"], per_mac[key]), ratios(of_c, per_mac[key])
        rate = spread([1e-9 / s for s in per_mac[key]])
        report["kernels"][title] = {"gmacs_per_s": rate, "of_roof": share, "of_layer_c": of}
        report["kernels"][title] |= timings[key].record()
        if title in LAYERS and title in names:
            _figure(report, f"{title}: kernel, bits to bits, share of the roof", share, goals.ROOF)
        elif title in EXTRA:
            _figure(report, f"{title}: rate per product, of layer C's", of, goals.SHARE_OF_C)
        elif title not in LAYERS:
            slow.append((of["median"], title, of))
    for _, title, of in sorted(slow)[:3]:
        _figure(report, f"{title}, among the slowest: rate per product, of layer C's", of, goals.SHARE_OF_C)
    report["roof_gmacs_per_s"] = spread([1e-9 / s for s in per_mac["roof"]])


def _figure(report: dict[str, Any], title: str, value: dict[str, float], goal: Goal | None) -> None:
    wanted = goal.promised(value["median"]) if goal else {}
    report["figures"].append({"figure": title, **value, **wanted})


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    kind = "processor time" if report["threads"] == 1 else "wall time"
    table = Table(title=f"Ratios of {kind}, {report['threads']} thread(s), {report['repeats']} rounds")
    for column in ("peer / ours", "median", "quartiles", "must", "aim", ""):
        table.add_column(column, justify="left" if column in ("peer / ours", "") else "right")
    for figure in report["figures"]:
        table.add_row(
            figure["figure"],
            f"{figure['median']:.2f}",
            f"{figure['low']:.2f} to {figure['high']:.2f}",
            *promised(figure),
        )
    yield table
    times = Table(title="Milliseconds")
    for column in ("case", "contestant", "processor", "wall", "difference"):
        times.add_column(column)
    for name, case in {**report["layers"], **report["networks"]}.items():
        for title, record in case.get("times", {}).items():
            both = (f"{record[k]['median']:.4f}" for k in ("cpu_ms", "wall_ms"))
            times.add_row(name, title, *both, f"{record['difference']:.1e}")
        for title, why in case["failed"].items():
            times.add_row(name, title, "failed", "", why)
    yield times


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.peers")
