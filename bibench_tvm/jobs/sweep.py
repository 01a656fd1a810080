"""A sweep: trainings over all combinations of tasks, networks, algorithms, seeds and settings."""

from __future__ import annotations

import hashlib
import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta
from rich.box import SIMPLE
from rich.table import Table

from bibench_tvm.cli.errors import UsageError
from bibench_tvm.importer.own_algorithm import Own
from bibench_tvm.jobs.job import Job, Outcome, folder_of
from trainers.algorithms import algorithms
from trainers.checkpoint import CHECKPOINT
from trainers.convert import list_algorithms, list_hyperparameters
from trainers.models import default_sizes
from trainers.options import check_options
from trainers.registry import unknown_name
from trainers.tasks import tasks
from trainers.training.recipe import find_recipe, split_setting
from trainers.wrong_type import in_words

Value = int | float | str | bool | None
Variant = Literal["paper", "released"]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a block of a sweep's file says; a list of them is a sweep too. Each field takes one or a list.

    Attributes:
        task, arch, algorithm: names; "all" algorithms are the float network and all that there are.
        variant: "paper" or "released"; seed: whole numbers; recipe: names.
        settings: in the file "set": setting of the recipe, or ALGORITHM.NUMBER -> its value or values.
        limit_train: samples; data: the folder of the data set.
    """

    task: str | list[str]
    arch: str | list[str]
    algorithm: str | list[str] = "all"
    variant: Variant | list[Variant] = "paper"
    seed: Seed | list[Seed] = 0
    recipe: str | list[str] = "paper"
    settings: Annotated[dict[str, Value | list[Value]], Meta(description="KEY: VALUE or VALUES")] = (
        msgspec.field(default_factory=dict, name="set")
    )
    limit_train: Annotated[int, Meta(ge=2, le=1_000_000_000)] | None = None
    data: str | None = None


class Point(msgspec.Struct, frozen=True):
    """One training of a sweep; `settings` as the command takes them, `file` the digest of the algorithm's if
    it is the user's own."""

    task: str
    arch: str
    algorithm: str
    variant: str
    seed: int
    recipe: str
    settings: tuple[str, ...]
    limit_train: int | None
    data: str | None
    file: str = ""

    @property
    def name(self) -> str:
        """The folder of its job."""
        parts = [self.recipe, *self.settings, f"seed={self.seed}"]
        if self.limit_train:
            parts.insert(1, f"limit={self.limit_train}")
        if self.data is not None:
            parts.append(f"data={hashlib.sha256(self.data.encode()).hexdigest()[:8]}")
        algorithm = self.algorithm if self.variant == "paper" else f"{self.algorithm}+{self.variant}"
        algorithm += f"@{self.file}" if self.file else ""
        return "/".join([self.task.replace("/", "_"), self.arch, algorithm, ",".join(parts)])

    @property
    def of_recipe(self) -> tuple[str, ...]:
        """The settings of the recipe; the others are numbers of the algorithm."""
        return tuple(setting for setting in self.settings if "." not in setting.split("=")[0])

    @property
    def float_twin(self) -> Point:
        """The float network that it starts from: without the numbers of the algorithm, and what only a
        binarized network has."""
        own = ("stages=", "distillation=", "temperature=", "decay_binary=")
        kept = tuple(setting for setting in self.of_recipe if not setting.startswith(own))
        return msgspec.structs.replace(self, algorithm="fp32", variant="paper", settings=kept, file="")


def read_sweep(path: Path, own: Own | None = None) -> list[Point]:
    """All points of the sweep in a YAML file, each once; `own` is the user's algorithm, if there is one.

    Raises:
        UsageError: the file is missing, is no YAML, or names what there is not.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', '') or 'it is no text'}."
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path} is not YAML{where}.") from error
    try:
        blocks = content if isinstance(content, list) else [content]
        grids = [msgspec.convert(block, Grid) for block in blocks]
    except msgspec.ValidationError as error:
        what, field = in_words(str(error))
        place = f"its {field}: " if field else ""
        raise UsageError(f"{path} is no sweep: {place}{what}.") from error
    points: dict[Point, Point] = {}
    for written in dict.fromkeys(point for grid in grids for point in _points(grid)):
        point = _checked(written)
        same = msgspec.structs.replace(point, settings=tuple(sorted(point.settings)))
        points.setdefault(same, own_point(point, own))
    if not points:
        raise UsageError(f"{path} has no trainings.")
    return list(points.values())


def own_point(point: Point, own: Own | None) -> Point:
    """The point, with the digest of the algorithm's file if it is the user's own."""
    return msgspec.structs.replace(point, file=own.digest) if own and point.algorithm == own.name else point


def _points(grid: Grid) -> Iterator[Point]:
    names = list_algorithms() if grid.algorithm == "all" else _several(grid.algorithm)
    for key in grid.settings:
        owner, dot, _ = key.partition(".")
        if dot and owner not in names:
            raise UsageError(f"The sweep sets {key}, and trains no algorithm {owner!r}.")
    axes = [[(key, value) for value in _several(values)] for key, values in grid.settings.items()]
    fields = (grid.task, grid.arch, names, grid.variant, grid.seed, grid.recipe)
    for task, arch, algorithm, variant, seed, recipe in itertools.product(*map(_several, fields)):
        for chosen in itertools.product(*axes):
            # The numbers of another algorithm are not for this one.
            settings = [
                f"{key}={_text(value)}"
                for key, value in chosen
                if "." not in key or key.split(".")[0] == algorithm
            ]
            yield Point(
                task,
                arch,
                algorithm,
                variant if algorithm != "fp32" else "paper",
                seed,
                recipe,
                tuple(settings),
                grid.limit_train,
                grid.data,
            )


def _several(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _text(value: Value) -> str:
    return yaml.safe_dump(value).removesuffix("\n").removesuffix("\n...")


def _checked(point: Point) -> Point:
    """The point, with each value in one spelling, whatever the file's: 1e-3 and "0.001" are 0.001.

    Raises:
        ValueError: it names what there is not, or has a value that cannot be.
    """
    _, _ = tasks[point.task], default_sizes(point.arch)
    if point.algorithm not in list_algorithms():
        raise unknown_name("algorithm", point.algorithm, list_algorithms())
    values = msgspec.to_builtins(find_recipe(point.recipe, point.of_recipe))
    prefix = f"{point.algorithm}."
    numbers = [s.removeprefix(prefix) for s in point.settings if s not in point.of_recipe]
    known = list_hyperparameters(point.algorithm)
    given = check_options(point.algorithm, "hyper-parameter", dict(map(split_setting, numbers)), known)
    if given:
        algorithms[point.algorithm].hyperparameters_type(**given)
    values |= {f"{prefix}{name}": value for name, value in given.items()}
    keys = [split_setting(setting)[0] for setting in point.settings]
    return msgspec.structs.replace(point, settings=tuple(f"{key}={_text(values[key])}" for key in keys))


def jobs_of(points: Sequence[Point], folder: Path, own: Own | None = None) -> list[Job]:
    """A job for each point, and one for each float network that a binarized one starts from.

    `own` is the user's algorithm, if some are of it. Paths are absolute, so that the jobs do the same from
    wherever they are run.
    """
    folder = folder.absolute()
    jobs: dict[str, Job] = {}
    for point in points:
        recipe = find_recipe(point.recipe, point.of_recipe)
        twin = point.float_twin
        if point.algorithm != "fp32" and recipe.from_float:
            jobs.setdefault(twin.name, job_of(twin, folder, own))
            start = ["--init", str(folder_of(folder, twin.name) / CHECKPOINT)]
            job = job_of(point, folder, own)
            jobs[point.name] = msgspec.structs.replace(job, command=job.command + start, needs=[twin.name])
        else:
            jobs.setdefault(point.name, job_of(point, folder, own))
    return list(jobs.values())


def job_of(point: Point, folder: Path, own: Own | None = None) -> Job:
    """The training by itself; `folder` is absolute."""
    command = ["bibench_tvm.train", "--json", "--threads", "1", "--out", str(folder_of(folder, point.name))]
    for option in ("task", "arch", "algorithm", "variant", "recipe", "seed", "limit_train", "data"):
        if (value := getattr(point, option)) is not None:
            command += [f"--{option.replace('_', '-')}", str(value)]
    for setting in point.settings:
        command += ["--set", setting]
    command += own.options(point.algorithm) if own else []
    return Job(name=point.name, command=command, outside=own.outside if own else {})


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each of `rows_of`: the deciding metric, in percent, mean and standard deviation over seeds.
    Settings that all of a network on a task have are left out."""
    shared: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        own = shared.setdefault((row["task"], row["arch"]), set(row["settings"]))
        own &= set(row["settings"])
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("task", "network", "algorithm", "settings", "metric", "mean", "std", "seeds"):
        table.add_column(column, overflow="fold")
    for row in rows:
        values, missing = row["values"], row["missing"]
        table.add_row(
            row["task"],
            row["arch"],
            row["algorithm"],
            ", ".join(s for s in row["settings"] if s not in shared[row["task"], row["arch"]]),
            row["metric"],
            f"{100 * statistics.fmean(values):.2f}" if values else "?",
            f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "",
            f"{len(values)} of {len(values) + len(missing)}" if missing else str(len(values)),
        )
    return table


def _of_data(point: Point) -> list[str]:
    """What a row says of the data, where a block of the sweep has more than the task's."""
    fields = {"limit_train": point.limit_train, "data": point.data}
    return [f"{name}={value}" for name, value in fields.items() if value is not None]


def rows_of(points: Sequence[Point], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each point but for its seed: `values` of the metric over seeds, and why some are missing."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    rows: dict[Point, dict[str, Any]] = {}
    for point in points:
        metric = tasks[point.task].metric
        algorithm = point.algorithm if point.variant == "paper" else f"{point.algorithm} ({point.variant})"
        row = rows.setdefault(
            msgspec.structs.replace(point, seed=0),
            {
                "task": point.task,
                "arch": point.arch,
                "algorithm": algorithm,
                "settings": [point.recipe, *point.settings, *_of_data(point)],
                "metric": metric,
                "values": [],
                "missing": [],
            },
        )
        outcome = by_name[point.name]
        value = outcome.result.get(f"test_{metric}")
        if outcome.state == "done" and isinstance(value, float):
            row["values"].append(value)
        else:
            row["missing"].append(
                f"{point.name} {outcome.state}: {outcome.reason or 'it has no such metric'}"
            )
    return list(rows.values())
