"""The two summary tables in the form of tables 2 and 3 of the paper, best and worst marked."""

from __future__ import annotations

from collections.abc import Sequence

from bibench_tvm.report.data import FLOAT, Data, Entry, algorithm, algorithms, board, printed_overall, short
from bibench_tvm.report.parts import Cell, Section, Table
from bibench_tvm.report.tables import cells, run_line
from bibench_tvm.tracks.overall import Row, overall, unknown_task
from bibench_tvm.tracks.results import Track, grouped
from bibench_tvm.tracks.structure import TASK as STRUCTURE

ACCURACY: tuple[Track, ...] = ("learning_task", "architecture", "corruption")
EFFICIENCY: tuple[Track, ...] = ("training", "complexity", "inference")
TITLES: dict[Track, str] = {
    "learning_task": "Learning task, %",
    "architecture": "Neural architecture, %",
    "corruption": "Corruption robustness, %",
    "training": "Training consumption, %",
    "complexity": "Theoretical complexity, times",
    "inference": "Hardware inference, times",
}


def section(data: Data, paper: bool) -> Section:
    parts: list[Table] = []
    left_out: list[str] = []
    for profile, entries in grouped(data.entries, lambda entry: entry.key.profile).items():
        for caption, tracks in (("Accuracy", ACCURACY), ("Efficiency", EFFICIENCY)):
            if table := _table(f"{caption}: profile {profile}", tracks, entries, left_out):
                parts.append(table)
    about = Section(
        id="summary",
        title="Summary: the six tracks",
        intro=[
            "As tables 2 and 3 of the paper: each number is relative to the float network, in percent or, "
            "for complexity and inference, a factor, so that more is better everywhere. The first row of a "
            "track is its overall metric, the quadratic mean of the rows below it. Small numbers are what "
            "the paper prints for its own tasks and boards.",
            *dict.fromkeys(left_out),
        ],
        empty="There is no binarized network to compare with a float one yet.",
        command=run_line(data, "--profile", "quick"),
    )
    return Section(about.id, about.title, about.intro, parts) if parts else about


def _table(
    caption: str, tracks: Sequence[Track], entries: Sequence[Entry], left_out: list[str]
) -> Table | None:
    own = [entry for entry in entries if entry.key.track in tracks or entry.key.track == "learning_task"]
    names = [name for name in algorithms(entries) if name != FLOAT]
    ours = {algorithm(entry.key): entry.key.algorithm for entry in entries}
    rows: list[list[Cell]] = []
    for track in tracks:
        for place, group in _places(track, own).items():
            found = _overall(track, group, left_out)
            lines: list[str | None] = [None]
            lines += list(dict.fromkeys(part for line in found.values() for part in line.parts))
            for part in lines if found else []:
                values = {
                    name: line.overall.value
                    if part is None
                    else (line.parts[part].value if part in line.parts else None)
                    for name, line in found.items()
                }
                if part is not None and all(value is None for value in values.values()):
                    continue
                printed = {name: printed_overall(track, part, ours[name]) for name in names}
                title = TITLES[track] if part is None else {"speedup": "speed-up"}.get(part, part)
                label = f"{title}, {place}" if part is None and place else title
                rows.append([Cell(label, head=part is None), *cells(names, values, printed)])
    return Table(caption, ["", *names], rows) if rows else None


def _places(track: Track, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Results that are compared with one another: of an inference, those of one board."""
    if track != "inference":
        return {"": list(entries)}
    own = [entry for entry in entries if entry.key.track == "inference"]
    return grouped(own, lambda entry: board(entry.key))


def _overall(track: Track, entries: Sequence[Entry], left_out: list[str]) -> dict[str, Row]:
    """By what an algorithm is called; those of one variant are compared with the float network."""
    known = []
    for entry in entries:
        if strange := unknown_task(entry.key):
            left_out.append(f"The task {short(strange)} is not known here, and in no overall metric.")
        elif entry.key.task != STRUCTURE:
            known.append(entry)
    found = {}
    for variant in dict.fromkeys(e.key.variant for e in known if e.key.algorithm != FLOAT):
        own = [e for e in known if e.key.variant == variant or e.key.algorithm == FLOAT]
        names = {e.key.algorithm: algorithm(e.key) for e in own}
        for line in overall([e.result for e in own]):
            if line.track == track and line.overall.count:
                found[names[line.algorithm]] = line
    return found
