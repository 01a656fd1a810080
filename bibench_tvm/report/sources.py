"""Where numbers come from: seeds, the command behind each result, machines and versions; and the headline."""

from __future__ import annotations

import shlex

from bibench_tvm.report.data import (
    Data,
    Entry,
    Sample,
    algorithm,
    algorithms,
    board,
    network,
    samples,
    score,
    settings,
)
from bibench_tvm.report.intervals import LEVEL
from bibench_tvm.report.parts import Cell, Section, Table, results, row
from bibench_tvm.report.tables import duration, percent, run_line
from bibench_tvm.tracks.results import TRACKS, grouped
from bibench_tvm.tracks.structure import TASK as STRUCTURE

KINDS = {
    "measured": "measured on real data or a real machine",
    "stand-in": "of stand-ins, small tasks made here in place of data that needs an account: they compare "
    "algorithms with one another, and with no published number",
    "emulated": "of emulated boards: instructions, counted, and no time",
    "model": "computed by a model, and not measured",
    "paper": "printed in the paper",
}
BUSY = 0.3  # load for each core, beside the job itself


def headline(data: Data) -> list[str]:
    """What was measured, where, how much of it."""
    entries = data.entries
    if not entries:
        return ["There are no results in this folder yet."]
    tracks = [track.replace("_", " ") for track in TRACKS if data.of(track)]
    networks = {entry.key.arch for entry in entries if entry.key.task != STRUCTURE}
    tasks = {entry.key.task for entry in entries if entry.key.task} - {STRUCTURE}
    machines = dict.fromkeys(_machine(entry) for entry in entries)
    figures = sum(len(entry.result.figures) for entry in entries)
    days = sorted(entry.result.ended[:10] for entry in entries if entry.result.ended)
    when = "" if not days else f", {days[0]}" if days[0] == days[-1] else f", {days[0]} to {days[-1]}"
    names = [name for name in algorithms(entries) if name != "fp32"]
    return [
        f"{_count(len(names), 'binarization algorithm')} ({', '.join(names) or 'none'}) on "
        f"{_count(len(networks), 'network')} and {_count(len(tasks), 'task')}: "
        f"{_count(len(entries), 'result')} with {_count(figures, 'number')} in {', '.join(tracks)}{when}.",
        f"Run on {'; '.join(machines)}.",
    ]


def kinds(data: Data) -> dict[str, int]:
    """Kind -> how many figures are of it."""
    found = dict.fromkeys(KINDS, 0)
    for entry in data.entries:
        for figure in entry.result.figures:
            found[figure.kind] += 1
    return {kind: count for kind, count in found.items() if count}


def warnings(data: Data) -> list[str]:
    """What keeps numbers here from being taken for more than they are."""
    entries, counted = data.entries, kinds(data)
    total = sum(counted.values())
    found = [
        f"{_count(count, 'number')} of {total:,} {'is' if count == 1 else 'are'} {KINDS[kind]}."
        for kind, count in counted.items()
        if kind != "measured"
    ]
    if len({tuple(sorted(entry.result.versions.items())) for entry in entries}) > 1:
        found.append("These results come from different versions of libraries, listed in the last section.")
    if len({entry.result.commit for entry in entries}) > 1:
        found.append("These results come from different commits of the project, listed in the last section.")
    if len({_machine(entry) for entry in entries}) > 1:
        found.append("These results come from different machines, whose times do not compare.")
    busy = [entry for entry in data.entries if entry.key.track == "inference" and _is_busy(entry)]
    if busy:
        found.append(
            f"{_count(len(busy), 'timing')} ended with a load of more than {1 + BUSY:g} for each core: "
            "others ran beside, and times may be too long."
        )
    open_ones = sum(entry.key.division == "open" for entry in entries)
    if open_ones:
        found.append(
            f"{_count(open_ones, 'result')} of the open division: trained by another recipe than the paper's."
        )
    found += [f"Left out or incomplete: {fault}" for fault in (*data.left_out, *data.faults)]
    return found


def seeds(data: Data, paper: bool) -> Section:
    about = Section(
        id="seeds",
        title="Seeds and intervals",
        intro=[
            f"Scores that were found with more than one seed: mean, standard deviation, and the {LEVEL:.0%} "
            "interval of the mean by Student's distribution, which says what the seeds alone may have done."
        ],
        empty="Every score here is of one seed: small differences may be chance.",
        command=run_line(data, "--profile", "standin", "--task", "standin_speech"),
    )
    parts = []
    for track, caption in (("learning_task", "Scores over seeds"), ("training", "With varied settings")):
        found = samples([entry for entry in data.entries if entry.key.track == track], score)
        rows = [_interval(sample) for sample in found if sample.interval.half is not None]
        columns = ["network", "algorithm", "seeds", "mean, %", "std", "95 % interval", "results"]
        if rows:
            parts.append(Table(f"{caption}, percent", columns, rows, 2, folded=track == "training"))
    return Section(about.id, about.title, about.intro, parts) if parts else about


def _interval(sample: Sample) -> list[Cell]:
    of = sample.interval
    return row(
        f"{network(sample.key)} {settings(sample.key)}",
        algorithm(sample.key),
        str(of.count),
        percent(of.mean),
        percent(of.std),
        f"{percent(of.low)} to {percent(of.high)}",
        results(sample.numbers),
    )


def commands(data: Data, paper: bool) -> Section:
    """The command behind every number."""
    about = Section(
        id="commands",
        title="The command behind every number",
        intro=["Numbers in brackets elsewhere lead here."],
        empty="There is no result yet.",
        command=run_line(data, "--profile", "quick"),
    )
    parts = []
    for track, own in grouped(data.entries, lambda entry: entry.key.track).items():
        rows = [_command(entry) for entry in own]
        columns = ["result", "of", "command", "took", "ended", "file"]
        parts.append(Table(track.replace("_", " "), columns, rows, len(columns), folded=True))
    return Section(about.id, about.title, about.intro, parts) if parts else about


def _command(entry: Entry) -> list[Cell]:
    key, result = entry.key, entry.result
    seed = "" if key.seed is None else f", seed {key.seed}"
    place = f", {board(key)}" if key.device else ""
    what = f"{network(key)}, {algorithm(key)}{seed}{place}, {key.division} division"
    return [
        Cell(str(entry.number)),
        Cell(what),
        Cell(shlex.join(["python", "-m", *result.command]), code=True),
        Cell(duration(result.seconds)),
        Cell(result.ended),
        Cell(entry.path, code=True),
    ]


def machines(data: Data, paper: bool) -> Section:
    about = Section(
        id="machines",
        title="Machines and versions",
        empty="There is no result yet.",
        command=run_line(data, "--profile", "quick"),
    )
    rows = []
    for (machine, versions, commit), own in grouped(
        data.entries, lambda entry: (_machine(entry), _versions(entry), entry.result.commit)
    ).items():
        rows.append(row(str(len(own)), machine, versions, Cell(commit[:12] or "unknown", code=True)))
    columns = ["results", "machine", "versions", "commit"]
    parts = [Table("What made these results", columns, rows, len(columns))] if rows else []
    return Section(about.id, about.title, (), parts) if parts else about


def _machine(entry: Entry) -> str:
    machine = entry.result.machine
    shown = [str(machine[name]) for name in ("processor", "system") if machine.get(name)]
    cores = [f"{machine['cores']} cores"] if machine.get("cores") else []
    return ", ".join([*shown[:1], *cores, *shown[1:]]) or "a machine that is not named"


def _versions(entry: Entry) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(entry.result.versions.items()))


def _is_busy(entry: Entry) -> bool:
    cores = entry.result.machine.get("cores")
    load = entry.result.conditions.get("load_average")
    return isinstance(cores, int) and cores > 0 and load is not None and load > (1 + BUSY) * cores


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
