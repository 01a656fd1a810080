"""The architecture track: what is left of the float network's score, by kind of network."""

from __future__ import annotations

from typing import Any

from bibench_tvm.report.data import (
    FLOAT,
    Data,
    algorithm,
    algorithms,
    network,
    samples,
    score,
    short,
    training_of,
)
from bibench_tvm.report.figures.style import dots, side_by_side, titled
from bibench_tvm.report.parts import Cell, Figure, Section, Table, results, row
from bibench_tvm.report.tables import number, run_line
from bibench_tvm.tracks import paper as printed_in
from bibench_tvm.tracks.overall import kind_of
from bibench_tvm.tracks.results import grouped
from bibench_tvm.tracks.structure import TASK as STRUCTURE


def section(data: Data, paper: bool) -> Section:
    about = Section(
        id="architecture",
        title="Accuracy by architecture",
        intro=[
            "The score of the binarized network in percent of that of the float network with the same "
            "settings; 100 is no loss. A bar goes from the worst to the best network of the kind."
        ],
        empty="No network has been compared with its float twin yet.",
        command=run_line(data, "--profile", "quick", "--track", "architecture"),
    )
    found = samples([e for e in data.of("architecture") if e.key.task != STRUCTURE], score)
    floats = {training_of(sample.key): sample for sample in found if sample.key.algorithm == FLOAT}
    rows: list[list[Cell]] = []
    points: list[dict[str, Any]] = []
    for sample in found:
        twin = floats.get(training_of(sample.key))
        if sample.key.algorithm == FLOAT or twin is None or not twin.interval.mean:
            continue
        kind = kind_of(sample.key.arch)
        left = 100 * sample.interval.mean / twin.interval.mean
        points.append({"kind": kind, "algorithm": algorithm(sample.key), "x": left})
        numbers = results([*sample.numbers, *twin.numbers])
        rows.append(row(network(sample.key), kind, algorithm(sample.key), number(left), numbers))
    structures = _structures(data)
    if not points:
        return Section(about.id, about.title, about.intro, structures) if structures else about
    charts = []
    for kind, group in sorted(grouped(points, lambda point: point["kind"]).items()):
        means = []
        for name, own in grouped(group, lambda point: point["algorithm"]).items():
            values = [point["x"] for point in own]
            mean = sum(values) / len(values)
            means.append({"algorithm": name, "x": mean, "low": min(values), "high": max(values)})
        there = [a for a in algorithms(data.of("architecture")) if a in {mean["algorithm"] for mean in means}]
        charts.append(titled(dots(means, there, "percent of the float network"), str(kind)))
    table = Table(
        "Score of each network relative to its float twin",
        ["network", "kind", "algorithm", "percent of float", "results"],
        rows,
        3,
        folded=True,
    )
    figure = Figure(
        name="architecture",
        title="What is left of the float network's score",
        says="Dots of the relative score in percent, a panel a kind of network, a row an algorithm.",
        chart=side_by_side(charts, 2),
        table=table,
    )
    return Section(about.id, about.title, about.intro, [figure, *structures])


def _structures(data: Data) -> list[Table]:
    """What binarization does to a structure with fresh weights, beside table 7."""
    printed = {
        line.structure: line.value
        for line in printed_in.read(printed_in.StructureError)
        if line.size == line.dimension == "mean"
    }
    rows = []
    for entry in data.of("architecture"):
        error = entry.result.figure("error")
        if entry.key.task == STRUCTURE and error is not None:
            paper = number(printed.get(entry.key.arch))
            rows.append(row(short(entry.key.arch), number(error), paper, results([entry.number])))
    caption = "Error of binary structures with fresh weights, of the spread of the float one's output"
    return [Table(caption, ["structure", "error", "paper", "results"], rows)] if rows else []
