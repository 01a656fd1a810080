"""From a profile to jobs, and from what a job printed to the results that it has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.jobs.engine import Job, Outcome, folder_of
from bibench_tvm.jobs.sweep import Point, jobs_of
from bibench_tvm.tracks.profiles import LR, Block, Profile
from bibench_tvm.tracks.results import Figure, Key, Kind, Layer, Track
from trainers.checkpoint import CHECKPOINT
from trainers.convert import list_algorithms
from trainers.registry import unknown_name

HERE = "host"
JUDGED: tuple[Track, ...] = ("learning_task", "architecture")  # by the training itself
CLOSED = {"epochs", "batch_size", "lr"}  # what may differ within the closed division
JOBS = "jobs"  # the folder of what jobs keep, beside that of the results


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a profile is run; nothing named is everything."""

    tracks: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    archs: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()

    def takes(self, track: Track, task: str, arch: str) -> bool:
        return all(
            not wanted or value in wanted
            for value, wanted in ((track, self.tracks), (task, self.tasks), (arch, self.archs))
        )


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A job with the keys of the results that it has."""

    job: Job
    keys: tuple[Key, ...]


def plan(name: str, profile: Profile, wanted: Filter, folder: Path) -> list[Item]:
    """The jobs of a profile, those before that others need.

    Raises:
        UsageError: what was asked for has no job.
    """
    for algorithm in wanted.algorithms:
        if algorithm not in list_algorithms():
            raise unknown_name("algorithm", algorithm, list_algorithms())
    keys: dict[str, list[Key]] = {}
    points: dict[str, Point] = {}
    later: list[Item] = []
    for block in profile.trainings:
        for point in _points(block, wanted.algorithms, block.settings):
            own = [
                _key(track, name, point) for track in JUDGED if wanted.takes(track, point.task, point.arch)
            ]
            corrupted = profile.corrupted.get(point.task)
            judged = bool(corrupted) and wanted.takes("corruption", point.task, point.arch)
            timed = wanted.takes("inference", point.task, point.arch) and point.seed == block.seeds[0]
            if own or judged or timed:
                points[point.name] = point
                keys.setdefault(point.name, []).extend(own)
            if judged and corrupted:
                later.append(_judging(name, point, corrupted, folder))
            if timed:
                later += _deploying(name, point, folder)
    if profile.sensitivity and wanted.takes("training", profile.sensitivity.task, profile.sensitivity.arch):
        for point in _variations(profile, wanted.algorithms):
            points[point.name] = point
            keys.setdefault(point.name, []).append(_key("training", name, point))
    trainings = [
        Item(job=job, keys=tuple(keys.get(job.name, ())))
        for job in jobs_of(list(points.values()), folder / JOBS)
    ]
    counted = [
        _counting(name, arch, algorithm)
        for arch in profile.complexity
        if wanted.takes("complexity", "", arch) and not wanted.tasks
        for algorithm in wanted.algorithms or list_algorithms()
    ]
    found = [*counted, *trainings, *later]
    if not found:
        raise UsageError(f"The profile {name} has no job for what was asked for.")
    return found


def _points(block: Block, algorithms: Collection[str], settings: tuple[str, ...]) -> Iterator[Point]:
    """The float network always: the others are compared with it."""
    for seed in block.seeds:
        for algorithm in dict.fromkeys(["fp32", *(algorithms or list_algorithms())]):
            yield Point(
                block.task, block.arch, algorithm, "paper", seed, "paper", settings, block.limit_train, None
            )


def _variations(profile: Profile, algorithms: Collection[str]) -> Iterator[Point]:
    """Of the sensitivity to hyper-parameters, section 4.2 of the paper."""
    assert profile.sensitivity is not None
    for optimizer in profile.optimizers:
        for rate in profile.rates:
            for schedule in profile.schedules:
                varied = (f"optimizer={optimizer}", f"lr={LR[optimizer] * rate:g}", f"schedule={schedule}")
                block = profile.sensitivity
                yield from _points(block, algorithms, (*block.settings, *varied))


def _key(track: Track, profile: str, point: Point, **fields: object) -> Key:
    settings = dict(setting.split("=", 1) for setting in point.settings)
    return Key(
        track=track,
        task=point.task,
        arch=point.arch,
        algorithm=point.algorithm,
        variant=point.variant,
        division="closed" if point.recipe == "paper" and settings.keys() <= CLOSED else "open",
        recipe=point.recipe,
        settings=settings | ({"limit_train": str(point.limit_train)} if point.limit_train else {}),
        seed=point.seed,
        profile=profile,
        **fields,  # type: ignore[arg-type]
    )


def _checkpoint(point: Point, folder: Path) -> Path:
    return folder_of((folder / JOBS).absolute(), point.name) / CHECKPOINT


def _judging(profile: str, point: Point, corrupted: str, folder: Path) -> Item:
    checkpoint = str(_checkpoint(point, folder))
    command = ["bibench_tvm.train", "--json", "--threads", "1", "--evaluate", checkpoint, "--task", corrupted]
    job = Job(name=f"corruption/{point.name}", command=command, needs=[point.name])
    return Item(job=job, keys=(_key("corruption", profile, point, corruption=corrupted),))


def _deploying(profile: str, point: Point, folder: Path) -> list[Item]:
    """Compiled for this machine and timed on it, by itself."""
    artifact = str(folder_of((folder / JOBS).absolute(), f"compile/{point.name}") / "artifact")
    checkpoint = str(_checkpoint(point, folder))
    compiled = Job(
        name=f"compile/{point.name}",
        command=[
            *("bibench_tvm.compile", "--json", "--checkpoint", checkpoint, "--target", HERE),
            *("--verify", "1", "--out", artifact),
        ],
        needs=[point.name],
    )
    timed = Job(
        name=f"bench/{point.name}",
        command=["bibench_tvm.bench", "--json", "--threads", "1", artifact],
        needs=[compiled.name],
        alone=True,
    )
    key = _key("inference", profile, point, device=HERE, threads=1, library="bibench_tvm")
    return [Item(job=compiled, keys=()), Item(job=timed, keys=(key,))]


def _counting(profile: str, arch: str, algorithm: str) -> Item:
    job = Job(
        name=f"complexity/{arch}/{algorithm}",
        command=["bibench_tvm.summary", "--json", "--arch", arch, "--algorithm", algorithm],
    )
    key = Key(track="complexity", task="", arch=arch, algorithm=algorithm, profile=profile)
    return Item(job=job, keys=(key,))


def figures_of(key: Key, outcome: Outcome) -> list[Figure]:
    """The numbers of a job that is done, for one of its keys.

    Raises:
        BibenchError: it printed none.
    """
    printed = outcome.result
    try:
        if key.track == "complexity":
            names = {"parameters": "1", "bits": "bit", "operations": "1", "compression": "1", "speedup": "1"}
            found = [
                Figure(name=name, value=float(printed[name]), unit=unit, kind="model")
                for name, unit in names.items()
                if printed[name] is not None
            ]
        elif key.track == "inference":
            (measured,) = printed["results"]
            milliseconds = measured["latency_ms"]["median"]
            found = [
                Figure(name="latency", value=milliseconds / 1e3, unit="s", kind="measured"),
                Figure(name="size", value=float(measured["size_bytes"]), unit="B", kind="measured"),
            ]
        else:
            kind: Kind = "stand-in" if (key.corruption or key.task).startswith("standin_") else "measured"
            metrics = printed.get("metrics") or {
                name.removeprefix("test_"): value
                for name, value in printed.items()
                if name.startswith("test_")
            }
            found = [
                Figure(name=name, value=float(value), unit="1", kind=kind) for name, value in metrics.items()
            ]
            if "train_seconds" in printed:
                seconds = float(printed["train_seconds"])
                found.append(Figure(name="train_seconds", value=seconds, unit="s", kind="measured"))
    except (KeyError, TypeError, ValueError) as error:
        raise BibenchError(f"What the job {outcome.name} printed has not the numbers of a result.") from error
    return found


def layers_of(key: Key, outcome: Outcome) -> list[Layer]:
    """Of an inference, each layer with its time; seconds, or instructions of an emulated board.

    Raises:
        BibenchError: it printed something else.
    """
    if key.track != "inference":
        return []
    try:
        (measured,) = outcome.result["results"]
        scale = 1.0 if measured["unit"] == "instructions" else 1e-3
        alone: dict[str, dict[str, float]] = {}
        for kind in measured.get("against", {}).get("layers", []):
            # Only what ran on the same board has a ratio.
            times = {name: time["cost"] * scale for name, time in kind["times"].items() if time["ratio"]}
            alone |= dict.fromkeys([kind["name"], *kind["like"]], times)
        fields = Layer.__struct_fields__
        return [
            msgspec.convert(
                {name: layer[name] for name in fields if name in layer}
                | {"cost": layer["cost"] * scale, "alone": alone.get(layer["name"], {})},
                Layer,
            )
            for layer in measured["layers"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise BibenchError(f"What the job {outcome.name} printed has not the layers of a result.") from error
