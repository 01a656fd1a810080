"""The results of a folder, as the report needs them: numbered, with clean names, those that differ only in
their seed together; and what could not be read."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.report.intervals import Interval, interval
from bibench_tvm.tracks import paper
from bibench_tvm.tracks.recompute import NAMES
from bibench_tvm.tracks.results import TRACKS, Key, Result, Track, edited, misplaced, read_each

FLOAT = "fp32"
LABELS = {FLOAT: "fp32"} | {ours: theirs for theirs, ours in NAMES.items()}  # in the order of the paper
_POSSIBLE = 1e-18, 1e18  # of a number that is not 0


@dataclass(frozen=True)
class Entry:
    """A result with its number on the page and its file."""

    number: int
    path: str
    result: Result

    @property
    def key(self) -> Key:
        return self.result.key


@dataclass(frozen=True)
class Sample:
    """A figure of results that differ only in their seed; key: of the first."""

    key: Key
    entries: tuple[Entry, ...]
    interval: Interval

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(entry.number for entry in self.entries)


@dataclass(frozen=True)
class Data:
    folder: Path
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...]
    faults: tuple[str, ...]

    def of(self, track: Track) -> list[Entry]:
        return [entry for entry in self.entries if entry.key.track == track]


def read_data(folder: Path) -> Data:
    """What is no result is a sentence in `left_out`, and what is wrong with a result one in `faults`.

    Raises:
        BibenchError: there is no folder.
    """
    whole: list[tuple[Path, Result]] = []
    left_out, faults = [], []
    for path, result in read_each(folder):
        if isinstance(result, BibenchError):
            left_out.append(_plain(str(result)))
            continue
        if wrong := misplaced(folder, path, result):
            left_out.append(_plain(f"{wrong}, and is left out."))
            continue
        if strange := _strange_number(result):
            left_out.append(_plain(f"{path} is left out: its {strange} is no number of a measurement."))
            continue
        if edited(result):
            faults.append(_plain(f"{path} was changed after it was written."))
        if not result.figures:
            faults.append(_plain(f"{path} has no figures."))
        whole.append((path, result))
    entries = [
        Entry(number, _plain(str(path.relative_to(folder))), _clean(result))
        for number, (path, result) in enumerate(sorted(whole, key=lambda pair: _place(pair[1].key)), 1)
    ]
    return Data(folder, tuple(entries), tuple(left_out), tuple(faults))


def _strange_number(result: Result) -> str | None:
    """The name of a number that no measurement gives, and that reckoning would turn into none."""
    numbers: dict[str, float | None] = {figure.name: figure.value for figure in result.figures}
    numbers |= {name: value for name, value in result.machine.items() if not isinstance(value, str)}
    numbers |= result.conditions | {"seconds": result.seconds}
    for layer in result.layers:
        numbers |= {f"{name} of {layer.name}": getattr(layer, name) for name in ("macs", "bytes", "cost")}
        numbers |= {f"{name} of {layer.name}": value for name, value in layer.alone.items()}
    least, most = _POSSIBLE
    return next((name for name, v in numbers.items() if v and not least <= abs(v) <= most), None)


def _place(key: Key) -> tuple[object, ...]:
    """In which order results are shown; algorithms as in the paper."""
    known = list(LABELS)
    order = known.index(key.algorithm) if key.algorithm in known else len(known)
    about = (key.profile, TRACKS.index(key.track), key.task, key.arch, key.device or "", key.threads or 0)
    return (*about, key.library or "", sorted(key.settings.items()), order, key.algorithm, key.seed or 0)


def _clean(result: Result) -> Result:
    """Results come from anywhere: their names are shown as text, and hold no character that is none."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return _plain(value)
        if isinstance(value, dict):
            return {_plain(key): clean(of) for key, of in value.items()}
        return [clean(one) for one in value] if isinstance(value, list) else value

    return msgspec.convert(clean(msgspec.to_builtins(result)), Result)


def _plain(text: str) -> str:
    """Without control characters, those that turn the direction of text, and half characters."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn") else c for c in text)


def short(text: str, length: int = 40) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def algorithm(key: Key) -> str:
    """As it is called on the page."""
    name = LABELS.get(key.algorithm, short(key.algorithm))
    return name if key.variant == "paper" or key.algorithm == FLOAT else f"{name} ({short(key.variant)})"


def algorithms(entries: Iterable[Entry]) -> list[str]:
    """Those that there are, in the order of the paper, others after them."""
    there = {algorithm(entry.key): entry.key.algorithm for entry in entries}
    order = list(LABELS)
    return sorted(there, key=lambda a: (order.index(n) if (n := there[a]) in order else len(order), a))


def network(key: Key) -> str:
    return short(" ".join(part for part in (key.task, key.arch) if part), 60)


def board(key: Key) -> str:
    """Where an inference ran, and by what."""
    threads = "" if key.threads is None else f", {key.threads} thread{'s' if key.threads != 1 else ''}"
    library = f", {short(key.library)}" if key.library not in (None, "bibench_tvm") else ""
    return f"{short(key.device or 'unknown')}{threads}{library}"


def settings(key: Key) -> str:
    return " ".join(f"{name}={value}" for name, value in key.settings.items())


def training_of(key: Key) -> tuple[object, ...]:
    """What networks have in common that were trained in the same way, whatever their algorithm and seed."""
    return key.profile, key.task, key.arch, key.recipe, tuple(sorted(key.settings.items()))


def metric(result: Result) -> str | None:
    """The name of the figure by which a task judges; of a task that is not known here, of its first share."""
    from trainers.tasks import tasks

    if result.key.task in tasks.names():
        return tasks[result.key.task].metric
    return next((f.name for f in result.figures if f.unit == "1" and ": " not in f.name), None)


def score(result: Result) -> float | None:
    name = metric(result)
    return None if name is None else result.figure(name)


def samples(entries: Iterable[Entry], figure: Callable[[Result], float | None]) -> list[Sample]:
    """Those that have the figure."""
    groups: dict[bytes, list[tuple[Entry, float]]] = {}
    for entry in entries:
        value = figure(entry.result)
        if value is not None and math.isfinite(value):
            same = msgspec.structs.replace(entry.key, seed=None)
            groups.setdefault(msgspec.json.encode(same, order="deterministic"), []).append((entry, value))
    return [
        Sample(group[0][0].key, tuple(entry for entry, _ in group), interval([value for _, value in group]))
        for group in groups.values()
    ]


_TASKS = {
    "cifar10": "CIFAR10",
    "imagenet": "ImageNet",
    "voc07": "VOC07",
    "coco17": "COCO17",
    "modelnet40": "ModelNet40",
    "shapenet": "ShapeNet",
    "glue": "GLUE",
    "speech_commands": "SpeechCom",
    "cifar10_c": "CIFAR10-C",
}
_TRACKS = {
    "learning_task": ("learning_task", "OM_task"),
    "architecture": ("neural_architecture", "OM_arch"),
    "corruption": ("corruption_robustness", "OM_corr"),
    "training": ("training_consumption", "OM_train"),
    "complexity": ("theoretical_complexity", "OM_comp"),
    "inference": ("hardware_inference", "OM_infer"),
}
_PARTS = {"time": "time_cost", "speed-up": "speedup"} | _TASKS


def printed_overall(track: Track, part: str | None, name: str) -> float | None:
    """What tables 2 and 3 of the paper have for an algorithm; part: None for the overall metric."""
    theirs, overall = _TRACKS[track]
    wanted = overall if part is None else _PARTS.get(part, part)
    for line in paper.read(paper.Summary):
        if (line.track, line.metric) == (theirs, wanted) and NAMES[line.algorithm] == name:
            return line.value
    return None


def printed_score(key: Key) -> float | None:
    """What tables 10 to 12 have for a network on a task, percent; of its whole size alone."""
    task, _, subtask = key.task.partition("/")
    for line in (*paper.read(paper.Vision), *paper.read(paper.Language), *paper.read(paper.Parts)):
        name = NAMES.get(line.algorithm, FLOAT)
        same = name == key.algorithm and _letters(line.task) == _letters(task)
        if not same or _letters(line.architecture) not in (_letters(key.arch), _letters(key.arch) + "l"):
            continue
        if isinstance(line, paper.Parts) and line.category != "Overall":
            continue
        if isinstance(line, paper.Language) and _letters(line.subtask) != _letters(subtask):
            continue
        return line.value
    return None


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum() or c == "@")
