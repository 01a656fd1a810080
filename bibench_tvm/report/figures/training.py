"""The training track, as figure 2 of the paper: accuracy by optimizer, rate and schedule; and the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair

from bibench_tvm.report.data import (
    FLOAT,
    Data,
    Entry,
    algorithm,
    algorithms,
    network,
    samples,
    score,
    training_of,
)
from bibench_tvm.report.figures.style import Rows, colour, data, dots, shape, side_by_side, titled
from bibench_tvm.report.intervals import interval
from bibench_tvm.report.parts import Figure, Section, Table, results, row
from bibench_tvm.report.tables import number, run_line, spread
from bibench_tvm.tracks import paper as printed_in
from bibench_tvm.tracks.results import grouped

VARIED = ("optimizer", "lr", "schedule")


def section(of: Data, paper: bool) -> Section:
    about = Section(
        id="training",
        title="Training: sensitivity and time",
        intro=[
            "The same network trained with other optimizers, learning rates and schedules. An algorithm "
            "whose dots lie close together is easy to train."
        ],
        empty="No network has been trained with varied settings yet.",
        command=run_line(of, "--profile", "standin", "--track", "training"),
    )
    parts: list[Table | Figure] = []
    entries = of.of("training")
    by_network = grouped(entries, lambda entry: (network(entry.key), entry.key.profile))
    for index, (name, own) in enumerate(by_network.items(), 1):
        parts += _sensitivity(" · ".join(name), f"-{index}", own)
    parts += _times([entry for entry in entries if entry.key.device])
    if not parts:
        return about
    if paper:
        parts.append(_of_paper())
    varied = any(not entry.key.device for entry in entries)
    lacks = ("", "") if varied else (about.empty, about.command)
    return Section(about.id, about.title, about.intro, parts, *lacks)


def _sensitivity(name: str, suffix: str, entries: Sequence[Entry]) -> list[Figure]:
    found = samples(entries, score)
    names = algorithms(entries)
    if not found:
        return []
    rows, points = [], []
    for sample in found:
        optimizer, rate, schedule = (sample.key.settings.get(name, "the recipe's") for name in VARIED)
        panel, mean = f"{optimizer}, {schedule}", sample.interval
        point = {"panel": panel, "rate": rate, "algorithm": algorithm(sample.key), "x": 100 * mean.mean}
        points.append(point | {"low": 100 * mean.low, "high": 100 * mean.high})
        numbers = results(sample.numbers)
        cells = (
            algorithm(sample.key),
            optimizer,
            rate,
            schedule,
            spread(mean, 100),
            str(mean.count),
            numbers,
        )
        rows.append(row(*cells))
    columns = ["algorithm", "optimizer", "rate", "schedule", "percent", "seeds", "results"]
    return [
        Figure(
            name=f"training{suffix}",
            title=f"Score by optimizer, rate and schedule: {name}",
            says="Dots of the score in percent, a panel an optimizer and schedule, a column a learning rate.",
            chart=_by_setting(points, names),
            table=Table(f"Score by setting: {name}", columns, rows, 4, folded=True),
        )
    ]


def _by_setting(points: Rows, names: Sequence[str]) -> Any:
    """The algorithms stand beside one another within a learning rate."""
    charts = []
    panels = grouped(points, lambda point: point["panel"])
    low, high = (pick(float(p[key]) for p in points) for pick, key in ((min, "low"), (max, "high")))
    scale = altair.Scale(domain=[max(low, -100), min(high, 100)], nice=True, zero=False, padding=8)
    for index, (panel, own) in enumerate(panels.items()):
        rates = sorted({str(point["rate"]) for point in own}, key=_order)
        base = altair.Chart(data(own), width=altair.Step(13), height=190)
        x = altair.X("rate:N", sort=rates, title="learning rate", axis=altair.Axis(labelAngle=0))
        offset = altair.XOffset("algorithm:N", sort=list(names), scale=altair.Scale(domain=list(names)))
        y = altair.Y("x:Q", title="percent" if index % 2 == 0 else None, scale=scale)
        spread = base.mark_rule(strokeWidth=1.5).encode(
            x,
            altair.Y("low:Q", scale=scale, title="percent" if index % 2 == 0 else None),
            colour(names, legend=True),
            offset,
            y2="high:Q",
        )
        dot = base.mark_point(size=50, filled=True, opacity=1).encode(
            x, y, colour(names, legend=True), shape(names, legend=True), offset
        )
        charts.append(titled(altair.layer(spread, dot), str(panel)))
    return side_by_side(charts, 2)


def _order(rate: str) -> tuple[float, str]:
    try:
        return float(rate), rate
    except ValueError:
        return 0.0, rate


def _times(entries: Sequence[Entry]) -> list[Figure]:
    """Of trainings that ran alone, against the float network's on the same machine."""

    def seconds(entry: Entry) -> float | None:
        return entry.result.figure("train_seconds")

    def twin(entry: Entry) -> tuple[object, ...]:
        return *training_of(entry.key), entry.key.seed, tuple(entry.result.machine.items())

    floats = {twin(e): e for e in entries if e.key.algorithm == FLOAT and seconds(e)}
    ratios: dict[str, list[tuple[float, list[int]]]] = {}
    for entry in entries:
        own, other = seconds(entry), floats.get(twin(entry))
        if own is None or other is None or entry.key.algorithm == FLOAT:
            continue
        ratio = own / (seconds(other) or 1)
        ratios.setdefault(algorithm(entry.key), []).append((ratio, [entry.number, other.number]))
    names = [name for name in algorithms(entries) if name in ratios]
    if not names:
        return []
    points, rows = [], []
    for name in names:
        values = [value for value, _ in ratios[name]]
        mean = interval(values)
        points.append({"algorithm": name, "x": mean.mean, "low": min(values), "high": max(values)})
        numbers = sorted({n for _, own in ratios[name] for n in own})
        ends = f"{number(min(values))} to {number(max(values))}"
        rows.append(row(name, number(mean.mean), ends, str(len(values)), results(numbers)))
    columns = ["algorithm", "times the float network's", "from, to", "trainings", "results"]
    return [
        Figure(
            name="training-time",
            title="Time of a training, in those of the float network",
            says="Dots of the mean ratio, with a bar from the least to the most, a row an algorithm.",
            chart=dots(points, names, "times the float network's: less is better", 380),
            table=Table("Time of a training", columns, rows, folded=True),
        )
    ]


def _of_paper() -> Figure:
    """Figure 2, from tables 15 and 16."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for line in printed_in.read(printed_in.Training):
        if line.quantity.startswith("run"):
            name = FLOAT if line.algorithm == "FP32" else line.algorithm
            key = name, f"{line.optimizer}, {line.scheduler}", f"{line.learning_rate:g}"
            groups.setdefault(key, []).append(line.value)
    points, rows = [], []
    for (name, panel, rate), values in groups.items():
        mean = interval(values)
        point = {"panel": panel, "rate": rate, "algorithm": name, "x": mean.mean}
        points.append(point | {"low": mean.low, "high": mean.high})
        rows.append(row(name, panel, rate, spread(mean), str(mean.count)))
    names = list(dict.fromkeys(name for name, _, _ in groups))
    title = "The paper, figure 2: accuracy of ResNet18 on CIFAR10 by optimizer, rate and schedule"
    table = Table(
        title, ["algorithm", "optimizer, schedule", "rate", "percent", "seeds"], rows, 3, folded=True
    )
    return Figure("paper-training", title, "The same panels, printed.", _by_setting(points, names), table)
