"""The inference track, as figure 3 of the paper: speed-up by board; and what accuracy a millisecond buys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair

from bibench_tvm.report.data import (
    FLOAT,
    Data,
    Entry,
    Sample,
    algorithm,
    algorithms,
    board,
    metric,
    network,
    samples,
    score,
    training_of,
)
from bibench_tvm.report.figures.style import (
    INK,
    ROW,
    Rows,
    across,
    colour,
    data,
    logarithmic,
    shape,
    side_by_side,
    titled,
)
from bibench_tvm.report.parts import Cell, Figure, Section, Table, results, row
from bibench_tvm.report.tables import NOTHING, cost, marks, number, run_line
from bibench_tvm.tracks import paper as printed_in
from bibench_tvm.tracks.results import Key, Result, grouped


def latency(result: Result) -> float | None:
    value = result.figure("latency")
    return value if value is not None and value > 0 else None


def unit(entry: Entry) -> str:
    """Of the latency: "s", or instructions of an emulated board."""
    return next((f.unit for f in entry.result.figures if f.name == "latency"), "s")


def section(of: Data, paper: bool) -> Section:
    about = Section(
        id="inference",
        title="Inference: speed and size on boards",
        intro=[
            "Compiled networks, timed where they run. The speed-up is against the float network, compiled by "
            "the same compiler for the same board with as many threads. An emulated board counts "
            "instructions, and has no time."
        ],
        empty="No compiled network has been timed yet.",
        command=run_line(of, "--profile", "quick", "--track", "inference"),
    )
    found = samples(of.of("inference"), latency)
    if not found:
        return about
    names = algorithms(of.of("inference"))
    parts: list[Table | Figure] = [*_speedups(found, names), *_fronts(found, names, of), _table(found)]
    if paper:
        parts.append(_of_paper())
    return Section(about.id, about.title, about.intro, parts)


def machine(entry: Entry) -> str:
    """Its board; where that is "host", with its processor, as it may be another one each time."""
    processor = entry.result.machine.get("processor", "")
    named = board(entry.key) + (f" ({processor})" if entry.key.device == "host" and processor else "")
    return named if unit(entry) == "s" else f"{named}, {unit(entry)}"


def _machine(sample: Sample) -> str:
    return machine(sample.entries[0])


def _twins(found: Sequence[Sample]) -> Callable[[Sample], Sample | None]:
    """The float network of the same job."""

    def same(sample: Sample) -> tuple[object, ...]:
        return *training_of(sample.key), _machine(sample)

    floats = {same(sample): sample for sample in found if sample.key.algorithm == FLOAT}
    return lambda sample: floats.get(same(sample))


def _speedups(found: Sequence[Sample], names: Sequence[str]) -> list[Figure]:
    twin_of = _twins(found)
    points: list[dict[str, Any]] = []
    rows = []
    for sample in found:
        twin = twin_of(sample)
        if twin is None or sample.key.algorithm == FLOAT:
            continue
        factor = twin.interval.mean / sample.interval.mean
        about = (_machine(sample), network(sample.key), algorithm(sample.key))
        points.append(dict(zip(("board", "network", "algorithm"), about, strict=True)) | {"x": factor})
        rows.append(row(*about, number(factor), results([*sample.numbers, *twin.numbers])))
    if not points:
        return []
    return [
        Figure(
            name="speedup",
            title="Speed-up by board, against the float network",
            says="Dots of how many times faster than float, a panel a network, a row a board.",
            chart=_by_board(points, [n for n in names if n in {p["algorithm"] for p in points}], "network"),
            table=Table(
                "Speed-up", ["board", "network", "algorithm", "times", "results"], rows, 3, folded=True
            ),
        )
    ]


def _by_board(points: Rows, names: Sequence[str], panel: str) -> Any:
    charts = []
    for name, own in grouped(points, lambda point: point[panel]).items():
        boards = list(dict.fromkeys(str(point["board"]) for point in own))
        base = altair.Chart(data(own), width=200, height=(ROW + 4) * max(len(boards), 2))
        y = altair.Y("board:N", sort=boards, title=None, scale=altair.Scale(domain=boards))
        x = across("x", "times faster than float", zero=True)
        one = altair.Chart(data([{"x": 1}])).mark_rule(strokeDash=[3, 3], opacity=0.6).encode(x=x)
        dot = base.mark_point(size=60, filled=True, opacity=0.9).encode(
            x, y, colour(names, legend=True), shape(names, legend=True)
        )
        charts.append(titled(altair.layer(one, dot), str(name)))
    return side_by_side(charts, 2)


def _fronts(found: Sequence[Sample], names: Sequence[str], of: Data) -> list[Figure]:
    """Score against latency, a panel a board and task."""
    judged = {_trained(sample.key): sample for sample in samples(of.of("learning_task"), score)}
    points: list[dict[str, Any]] = []
    numbers: dict[int, list[int]] = {}
    for sample in found:
        if twin := judged.get(_trained(sample.key)):
            numbers[len(points)] = [*sample.numbers, *twin.numbers]
            of_time = unit(sample.entries[0]) == "s"
            points.append(
                {
                    "board": _machine(sample),
                    "task": sample.key.task,
                    "metric": metric(twin.entries[0].result),
                    "algorithm": algorithm(sample.key),
                    "arch": sample.key.arch,
                    "unit": "ms" if of_time else unit(sample.entries[0]),
                    "x": sample.interval.mean * (1e3 if of_time else 1),
                    "y": 100 * twin.interval.mean,
                    "index": len(points),
                }
            )
    if not points:
        return []
    charts, rows = [], []
    for (place, task), own in grouped(points, lambda point: (point["board"], point["task"])).items():
        best = front([(point["x"], point["y"]) for point in own])
        charts.append(titled(_front(own, best, names), task, place))
        for point in own:
            on = "yes" if (point["x"], point["y"]) in best else "no"
            shown = (point["arch"], point["algorithm"], f"{point['x']:.4g} {point['unit']}")
            rows.append(
                row(place, task, *shown, number(point["y"]), on, results(numbers[point["index"]])),
            )
    columns = ["board", "task", "network", "algorithm", "latency", "score, %", "on the front", "results"]
    return [
        Figure(
            name="pareto",
            title="Accuracy against latency, with the Pareto front of each board",
            says="Points of score over latency, a panel a board and task; a line joins those that no other "
            "network beats in both.",
            chart=side_by_side(charts, 2),
            table=Table("Accuracy against latency", columns, rows, 4, folded=True),
        )
    ]


def _trained(key: Key) -> tuple[object, ...]:
    return *training_of(key), key.algorithm, key.variant


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (cost, score) that no other beats: none costs less with at least its score, and none has
    more at its cost. By cost."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def _front(own: Rows, best: Sequence[tuple[float, float]], names: Sequence[str]) -> Any:
    archs = {str(point["arch"]) for point in own}
    of = str(own[0]["unit"])
    title = f"{of} a run, logarithmic: less is better"
    x = logarithmic(altair.X, "x", title, [float(point["x"]) for point in own], large=of != "ms")
    y = altair.Y("y:Q", title=f"{own[0]['metric']}, percent", scale=altair.Scale(zero=False, padding=14))
    line = altair.Chart(data([{"x": a, "y": b} for a, b in best]), width=250, height=200).mark_line(
        interpolate="step-after", color=INK, strokeDash=[4, 3], opacity=0.7
    )
    base = altair.Chart(data([{**point, "label": _label(point, archs)} for point in own]))
    dot = base.mark_point(size=70, filled=True, opacity=1).encode(
        x, y, colour(names, legend=True), shape(names, legend=True)
    )
    text = base.mark_text(align="left", dx=7, dy=-6, fontSize=10).encode(x, y, text="label:N")
    return (
        altair.layer(line.encode(x, y), dot, text) if len(own) <= 12 else altair.layer(line.encode(x, y), dot)
    )


def _label(point: Any, archs: set[str]) -> str:
    return str(point["algorithm"] if len(archs) == 1 else f"{point['arch']} {point['algorithm']}")


def _table(found: Sequence[Sample]) -> Table:
    rows = []
    for own in grouped(found, lambda sample: (_machine(sample), network(sample.key))).values():
        best = marks({str(id(s)): s.interval.mean for s in own}, more_is_better=False)
        for sample in own:
            size = sample.entries[0].result.figure("size")
            rows.append(
                row(
                    _machine(sample),
                    network(sample.key),
                    algorithm(sample.key),
                    Cell(
                        cost(sample.interval.mean, unit(sample.entries[0])),
                        mark=best.get(str(id(sample)), ""),
                    ),
                    NOTHING if size is None else f"{size / 1024:,.0f} KiB",
                    results(sample.numbers),
                )
            )
    columns = ["board", "network", "algorithm", "latency", "size", "results"]
    return Table("Latency and size: best and worst of each network on each board", columns, rows, 3)


def _of_paper() -> Figure:
    """Figure 3, from tables 17 to 20: Larq on one thread."""
    points: list[dict[str, Any]] = []
    rows = []
    for line in printed_in.read(printed_in.Inference):
        if line.threads == 1:
            for name, value in (("BNN", line.larq_bnn_ms), ("ReActNet", line.larq_react_ms)):
                factor = line.larq_fp32_ms / value
                about = {"board": line.hardware, "network": line.architecture, "algorithm": name}
                points.append(about | {"x": factor})
                rows.append(row(*about.values(), number(factor)))
    title = "The paper, figure 3: speed-up by board, with Larq, one thread"
    table = Table(title, ["board", "network", "algorithm", "times"], rows, 3, folded=True)
    chart = _by_board(points, ["BNN", "ReActNet"], "network")
    return Figure("paper-speedup", title, "Dots of the printed speed-ups, a row a board.", chart, table)
