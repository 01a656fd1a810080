"""What is wrong with results: files that are none, values that cannot be, and what does not go together."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.tracks.overall import overall, unknown_task
from bibench_tvm.tracks.results import (
    CONTENT,
    Figure,
    Key,
    Result,
    by_profile,
    edited,
    misplaced,
    read_each,
)

CORRELATIONS = ("correlation", "matthews", "pearson", "spearman")  # the metrics that may be below 0
ALIKE = 0.005  # between a board's score and the host's, whose float layers round otherwise
WITHIN = 3.0  # times the latency, at most, take the layers together: each is timed by itself, which costs
EMULATED = "instructions"


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes:
    results: those that were read; at_fault: sentences on what cannot be right.
    missing: what a comparison lacks; mixed: what should not be compared without a thought.
    """

    results: list[Result]
    at_fault: list[str]
    missing: list[str]
    mixed: list[str]


def check(folder: Path) -> Findings:
    """Everything below `folder`.

    Raises:
        BibenchError: there is no such folder.
    """
    sentences, whole = [], []
    for path, found in read_each(folder):
        if isinstance(found, BibenchError):
            sentences.append(str(found))
            continue
        whole.append(found)
        if wrong := misplaced(folder, path, found):
            sentences.append(f"{wrong}.")
        sentences += [f"{path}: {fault}." for fault in faults(found)]
    sentences += _otherwise_on_boards(whole)
    return Findings(results=whole, at_fault=sentences, missing=_missing(whole), mixed=_mixed(whole))


def faults(result: Result) -> Iterator[str]:
    """What cannot be in one result, each without its full stop."""
    if edited(result):
        yield "it was changed after it was written"
    if not result.figures:
        yield "it has no figures"
    if len({figure.name for figure in result.figures}) < len(result.figures):
        yield "it has two figures of one name"
    for figure in result.figures:
        if reason := _impossible(figure, result):
            yield f"{figure.name} is {figure.value:g}, {reason}"
        yield from _of_another_kind(figure, result)
    yield from _origins(result)
    yield from _disagreements(result)


def _impossible(figure: Figure, result: Result) -> str:
    """Why the figure cannot have its value; "" if it can."""
    value = figure.value
    if not math.isfinite(value):
        return "which is no number"
    if figure.unit != "1":
        return "" if value > 0 else "and has to be more than 0"
    if result.key.track == "complexity":
        bound = {"compression": 32.0, "speedup": 64.0}.get(figure.name, math.inf)
        return "" if 0 < value <= bound else f"and has to be from 0 to {bound:g}"
    if figure.name == "error":
        return "" if value >= 0 else "and has to be 0 or more"
    lowest = -1 if figure.name.split(": ")[-1].startswith(CORRELATIONS) else 0
    return "" if lowest <= value <= 1 else f"and has to be from {lowest} to 1"


def _of_another_kind(figure: Figure, result: Result) -> Iterator[str]:
    key = result.key
    stands_in = (key.corruption or key.task).startswith("standin_") and figure.unit == "1"
    if stands_in != (figure.kind == "stand-in") and key.track not in ("complexity", "inference"):
        yield f"{figure.name} is called {figure.kind}, and {'is' if stands_in else 'is not'} of a stand-in"
    if (figure.unit == EMULATED) != (figure.kind == "emulated"):
        yield f"{figure.name} is called {figure.kind}, and is in {figure.unit}"


def _origins(result: Result) -> Iterator[str]:
    lacking = [name for name in ("command", "versions", "machine") if not getattr(result, name)]
    if result.key.track in ("learning_task", "corruption") and not result.hashes.get("checkpoint"):
        lacking.append("hash of the checkpoint")
    if lacking:
        yield f"it does not say its {', '.join(lacking)}"
    try:
        datetime.datetime.fromisoformat(result.ended)
    except ValueError:
        yield f"it ended at {result.ended[:40]!r}, which is no time"
    if not (math.isfinite(result.seconds) and result.seconds >= 0):
        yield f"it took {result.seconds:g} seconds"


def _disagreements(result: Result) -> Iterator[str]:
    """Between figures of the same result."""
    together, latency = sum(layer.cost for layer in result.layers), result.figure("latency")
    if latency and together > WITHIN * latency:
        yield f"its layers take {together:g} together, and the whole {latency:g}"
    names = {name.split(": ")[-1] for figure in result.figures if ": " in (name := figure.name)}
    for name in names:
        parts = [figure.value for figure in result.figures if figure.name.endswith(f": {name}")]
        mean = result.figure(name)
        if mean is not None and not math.isclose(mean, math.fsum(parts) / len(parts), abs_tol=1e-5):
            yield f"{name} is {mean:g}, and the mean of its {len(parts)} parts is not"


def _otherwise_on_boards(results: Sequence[Result]) -> Iterator[str]:
    """Scores of artifacts on boards that are not those of the networks that they were compiled from."""

    def network(result: Result) -> Key:
        return msgspec.structs.replace(
            result.key, track="learning_task", device=None, threads=None, library=None
        )

    trained = {str(result.key): result for result in results if result.key.track == "learning_task"}
    for result in results:
        source = trained.get(str(network(result)))
        if result.key.track != "inference" or source is None:
            continue
        for figure in result.figures:
            wanted = source.figure(figure.name) if figure.unit == "1" else None
            if wanted is not None and abs(figure.value - wanted) > ALIKE:
                key = result.key
                about = f"{key.profile}, {key.task}, {key.arch}, {key.algorithm}: {figure.name}"
                yield f"{about} is {figure.value:g} on {key.device}, and {wanted:g} where it was trained."


def _missing(results: Sequence[Result]) -> list[str]:
    found = []
    for profile, own in by_profile(results).items():
        strange = dict.fromkeys((r.key.track, task) for r in own if (task := unknown_task(r.key)))
        found += [f"{profile}, {track}: the task {task}, which is not known here" for track, task in strange]
        found += [
            f"{profile}, {row.track}, {row.algorithm}: {name}" for row in overall(own) for name in row.missing
        ]
    return found


def _mixed(results: Sequence[Result]) -> list[str]:
    """Versions of packages, and machines that times were taken on, of which a profile has several; and
    results of which it is not known whether they are what was written."""
    found = []
    for profile, own in by_profile(results).items():
        for package in sorted({name for result in own for name in result.versions}):
            versions = sorted({result.versions.get(package, "none") for result in own})
            if len(versions) > 1:
                found.append(f"The profile {profile} has results with {package} {' and '.join(versions)}.")
        if unsealed := sum(CONTENT not in result.hashes for result in own):
            found.append(
                f"The profile {profile} has {unsealed} results without a hash of what they say: whether they "
                "were changed does not show."
            )
        timed = [result for result in own if result.key.device == "host"]
        machines = sorted({str(result.machine.get("processor")) for result in timed})
        if len(machines) > 1:
            found.append(f"The profile {profile} has times of {' and '.join(machines)}.")
    return found
