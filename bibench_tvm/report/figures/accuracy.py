"""The learning task track: the score of every algorithm on every task, with what the paper has."""

from __future__ import annotations

from bibench_tvm.report.data import (
    Data,
    Sample,
    algorithm,
    algorithms,
    network,
    printed_score,
    samples,
    score,
    settings,
)
from bibench_tvm.report.figures.style import dots, side_by_side, titled
from bibench_tvm.report.parts import Cell, Figure, Section, Table, results, row
from bibench_tvm.report.tables import number, run_line, spread
from bibench_tvm.tracks.results import grouped


def section(data: Data, paper: bool) -> Section:
    entries = data.of("learning_task")
    found = samples(entries, score)
    names = algorithms(entries)
    about = Section(
        id="learning-task",
        title="Accuracy by task",
        intro=[
            "The score that each task judges by, in percent: accuracy for classes, average precision for "
            "boxes, mean IoU for parts, a correlation for some of GLUE. Bars are 95 % intervals over seeds."
        ],
        empty="No training has been judged yet.",
        command=run_line(data, "--profile", "quick", "--track", "learning_task"),
    )
    if not found:
        return about
    panels = grouped(found, lambda sample: (sample.key.profile, network(sample.key), settings(sample.key)))
    several = len({profile for profile, _, _ in panels}) > 1
    several_settings = len({(p, n) for p, n, _ in panels}) < len(panels)
    charts, beside = [], False
    for (profile, name, of), group in panels.items():
        title = [name, profile if several else "", of if several_settings else ""]
        rows = [_point(sample) | {"printed": printed_score(sample.key)} for sample in group]
        beside = beside or any(point["printed"] is not None for point in rows)
        chart = dots(rows, [a for a in names if a in {r["algorithm"] for r in rows}], "percent")
        charts.append(titled(chart, " · ".join(part for part in title if part)))
    figure = Figure(
        name="accuracy",
        title="Score by task, network and algorithm",
        says=f"Dots of the score in percent for {len(panels)} tasks with a network, a row an algorithm.",
        chart=side_by_side(charts, 2),
        table=_table(found),
    )
    stroke = ["An upright stroke is what the paper prints for the same network and task."] if beside else []
    return Section(about.id, about.title, [*about.intro, *stroke], [figure])


def _point(sample: Sample) -> dict[str, object]:
    of = sample.interval
    return {
        "algorithm": algorithm(sample.key),
        "x": 100 * of.mean,
        "low": 100 * of.low,
        "high": 100 * of.high,
    }


def _table(found: list[Sample]) -> Table:
    rows = []
    for sample in found:
        printed = printed_score(sample.key)
        rows.append(
            row(
                network(sample.key),
                algorithm(sample.key),
                spread(sample.interval, 100),
                str(sample.interval.count),
                Cell(number(printed)),
                settings(sample.key),
                results(sample.numbers),
            )
        )
    columns = ["network", "algorithm", "percent", "seeds", "paper", "settings", "results"]
    return Table("Scores, and what tables 10 to 12 of the paper print", columns, rows, 2, folded=True)
