"""The corruption track: error on corrupted data beside the gap to clean data, and a heat map."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import altair

from bibench_tvm.report.data import FLOAT, Data, Entry, algorithm, algorithms, metric, score, training_of
from bibench_tvm.report.figures.style import Rows, data, dots, side_by_side
from bibench_tvm.report.intervals import Interval, interval
from bibench_tvm.report.parts import Figure, Section, Table, results, row
from bibench_tvm.report.tables import number, run_line, spread
from bibench_tvm.tracks import paper as printed_in
from bibench_tvm.tracks.recompute import NAMES
from bibench_tvm.tracks.results import grouped


def section(of: Data, paper: bool) -> Section:
    about = Section(
        id="corruption",
        title="Robustness to corruption",
        intro=[
            "The corruption error is how often a network is wrong on corrupted data, in the mean of all "
            "corruptions and severities. The gap is how much it loses against clean data: a network that is "
            "bad on clean data can have a small gap, so the two are side by side. Relative numbers have the "
            "float network as 100."
        ],
        empty="No network has been judged on corrupted data yet.",
        command=run_line(of, "--profile", "standin", "--track", "corruption"),
    )
    by_network = grouped(of.of("corruption"), _where)
    parts: list[Table | Figure] = []
    for index, (name, entries) in enumerate(by_network.items(), 1):
        parts += _of_network(" · ".join(name), f"-{index}", entries, of)
    if paper and parts:
        parts += _of_paper()
    return Section(about.id, about.title, about.intro, parts) if parts else about


def _where(entry: Entry) -> tuple[str, ...]:
    key = entry.key
    return tuple(part for part in (key.task, key.arch, key.corruption or "", key.profile) if part)


def _of_network(name: str, suffix: str, entries: Sequence[Entry], of: Data) -> list[Table | Figure]:
    sets = {entry.number: _sets(entry) for entry in entries}
    entries = [entry for entry in entries if sets[entry.number]]
    by_algorithm = grouped(entries, lambda entry: algorithm(entry.key))
    names = [a for a in algorithms(entries) if a in by_algorithm]
    if not names:
        return []
    clean = {_network(entry): entry for entry in of.of("learning_task")}
    errors: dict[str, Interval] = {}
    gaps: dict[str, Interval] = {}
    numbers: dict[str, list[int]] = {}
    maps: list[dict[str, Any]] = []
    for one in names:
        own = by_algorithm[one]
        errors[one] = interval([100 * (1 - statistics.fmean(sets[e.number].values())) for e in own])
        numbers[one] = [e.number for e in own]
        before = []
        for entry in own:
            twin = clean.get(_network(entry))
            value = score(twin.result) if twin else None
            if twin and value is not None:
                before.append(100 * (value - statistics.fmean(sets[entry.number].values())))
                numbers[one].append(twin.number)
        if before:
            gaps[one] = interval(before)
        kinds: dict[str, list[float]] = {}
        for entry in own:
            for split, value in sets[entry.number].items():
                kinds.setdefault(split.partition("/")[0], []).append(100 * value)
        maps += [{"kind": k, "algorithm": one, "x": statistics.fmean(v)} for k, v in kinds.items()]
    table = _table(name, names, errors, gaps, numbers)
    return [
        Figure(
            name=f"corruption{suffix}",
            title=f"Corruption error beside the gap: {name}",
            says="Two panels of dots, a row an algorithm: the error on corrupted data, and the loss of "
            "accuracy against clean data.",
            chart=_beside(names, errors, gaps),
            table=table,
        ),
        _heat(f"corruption-map{suffix}", f"Accuracy by corruption: {name}", maps, names),
    ]


def _sets(entry: Entry) -> dict[str, float]:
    """Corrupted set -> what the task judges by there."""
    name = metric(entry.result) or "accuracy"
    pairs = ((figure.name.rpartition(": "), figure.value) for figure in entry.result.figures)
    return {split: value for (split, colon, of), value in pairs if colon and of == name}


def _network(entry: Entry) -> tuple[object, ...]:
    """What tells trained networks apart."""
    return *training_of(entry.key), entry.key.algorithm, entry.key.variant, entry.key.seed


def _beside(names: Sequence[str], errors: dict[str, Interval], gaps: dict[str, Interval]) -> Any:
    def rows(of: dict[str, Interval]) -> list[dict[str, Any]]:
        return [{"algorithm": a, "x": i.mean, "low": i.low, "high": i.high} for a, i in of.items()]

    panels = [dots(rows(errors), names, "corruption error, percent: less is better")]
    if gaps:
        panels.append(dots(rows(gaps), names, "gap, points: less is better"))
    return side_by_side(panels, 2)


def _table(
    name: str,
    names: Sequence[str],
    errors: dict[str, Interval],
    gaps: dict[str, Interval],
    numbers: dict[str, list[int]],
) -> Table:
    def relative(of: dict[str, Interval], one: str) -> str:
        twin = of.get("fp32")
        return number(100 * of[one].mean / twin.mean if one in of and twin and twin.mean else None)

    rows = [
        row(
            one,
            spread(errors[one]),
            relative(errors, one),
            spread(gaps[one]) if one in gaps else "–",
            relative(gaps, one),
            str(errors[one].count),
            results(numbers[one]),
        )
        for one in names
    ]
    columns = ["algorithm", "error, %", "of float's, %", "gap, points", "of float's, %", "seeds", "results"]
    return Table(f"Corruption error and gap: {name}", columns, rows, folded=True)


def _heat(name: str, title: str, rows: Rows, names: Sequence[str]) -> Figure:
    """Every cell has its number, so that it can be read without its colour."""
    kinds = list(dict.fromkeys(str(one["kind"]) for one in rows))
    values = [float(one["x"]) for one in rows]
    # Where black and white can both be read on viridis.
    middle = min(values) + 0.45 * (max(values) - min(values))
    base = altair.Chart(data(rows)).encode(
        altair.X("algorithm:N", sort=list(names), title=None, axis=altair.Axis(orient="top", labelAngle=0)),
        altair.Y("kind:N", sort=kinds, title=None),
    )
    scale = altair.Scale(scheme="viridis", zero=False)
    boxes = base.mark_rect().encode(color=altair.Color("x:Q", scale=scale, legend=None))
    # A constant, so that the text is dark where viridis is light.
    dark = altair.condition(f"datum.x > {middle!r}", altair.value("#000000"), altair.value("#ffffff"))
    text = base.mark_text(fontSize=10).encode(text=altair.Text("x:Q", format=".1f"), color=dark)
    by = {(str(one["kind"]), str(one["algorithm"])): float(one["x"]) for one in rows}
    table = Table(
        title,
        ["corruption", *names],
        [row(kind, *(number(by.get((kind, a)), 1) for a in names)) for kind in kinds],
        folded=True,
    )
    chart = altair.layer(boxes, text).properties(width=58 * len(names), height=19 * len(kinds))
    says = (
        f"A heat map of accuracy in percent: {len(kinds)} corruptions down, {len(names)} algorithms across."
    )
    return Figure(name, title, says, chart, table)


def _of_paper() -> list[Table | Figure]:
    """Tables 13 and 14 of the paper."""
    label = {FLOAT.upper(): FLOAT} | {name: name for name in NAMES}
    kinds: dict[tuple[str, str], list[float]] = {}
    for line in printed_in.read(printed_in.Corruption):
        if line.severity:
            kinds.setdefault((line.corruption, label[line.algorithm]), []).append(line.accuracy)
    rows = [{"kind": k, "algorithm": a, "x": statistics.fmean(v)} for (k, a), v in kinds.items()]
    title = "The paper: accuracy of ResNet18 by corruption of CIFAR10-C"
    return [_heat("paper-corruption", title, rows, list(label.values()))]
