"""The trials of one folder, each kept on disk as soon as it is measured, so that none is measured twice."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm

from bibench_tvm.cli.errors import BibenchError, UsageError
from schedules.records.digest import digest
from schedules.records.kernel_task import KernelTask
from schedules.records.records import Processor, Record, choice_from_json
from schedules.targets.kernel_target import Choice, KernelTarget

FILE = "trials.sqlite"
LIBRARY = "library"  # in the place of a choice: TVM's own kernel
_TABLES = """
CREATE TABLE IF NOT EXISTS about (what TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS networks (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS trials (
    task TEXT NOT NULL, tile TEXT NOT NULL, cost REAL, instructions REAL, reason TEXT NOT NULL,
    board TEXT NOT NULL, conditions TEXT NOT NULL, seed INTEGER NOT NULL, measured_at REAL NOT NULL,
    kernel TEXT NOT NULL DEFAULT '', PRIMARY KEY (task, tile));
CREATE TABLE IF NOT EXISTS comparisons (
    task TEXT NOT NULL, tile TEXT NOT NULL, cost REAL NOT NULL, default_cost REAL NOT NULL,
    better INTEGER NOT NULL, reason TEXT NOT NULL, kernel TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (task, tile));
"""


@dataclass(frozen=True)
class Measured:
    """One trial: its cost in the unit of the folder, or None and the reason. instructions: on an emulated
    board, those that one call executes."""

    cost: float | None
    reason: str = ""
    instructions: float | None = None
    board: str = ""
    conditions: str = "{}"


@dataclass(frozen=True)
class Confirmation:
    """A candidate measured against the default in turns. better: whether it may become a record."""

    cost: float
    default_cost: float
    better: bool
    reason: str = ""


class Trials:
    """Tasks and choices are told apart by their JSON. A trial whose kernel has changed since was none."""

    def __init__(self, database: sqlite3.Connection, seed: int, target: KernelTarget):
        self._database, self._seed, self._target = database, seed, target

    def _kernel(self, task: KernelTask[Any], tile: Choice | str) -> str:
        """Of TVM's kernel nothing; of a choice that cannot be, nothing either."""
        try:
            return "" if isinstance(tile, str) else digest(task, tile, self._target)
        except ValueError:
            return ""

    def find(self, task: KernelTask[Any], tile: Choice | str) -> Measured | None:
        row = self._database.execute(
            "SELECT cost, reason, instructions, board, conditions FROM trials "
            "WHERE task = ? AND tile = ? AND kernel = ?",
            (task.key, _text(tile), self._kernel(task, tile)),
        ).fetchone()
        return Measured(*row) if row else None

    def keep(self, task: KernelTask[Any], tile: Choice | str, found: Measured) -> None:
        self._insert(
            "trials",
            task.key,
            _text(tile),
            found.cost,
            found.instructions,
            found.reason,
            found.board,
            found.conditions,
            self._seed,
            time.time(),
            self._kernel(task, tile),
        )

    def find_comparison(self, task: KernelTask[Any], tile: Choice) -> Confirmation | None:
        row = self._database.execute(
            "SELECT cost, default_cost, better, reason FROM comparisons "
            "WHERE task = ? AND tile = ? AND kernel = ?",
            (task.key, _text(tile), self._kernel(task, tile)),
        ).fetchone()
        return Confirmation(row[0], row[1], bool(row[2]), row[3]) if row else None

    def keep_comparison(self, task: KernelTask[Any], tile: Choice, found: Confirmation) -> None:
        self._insert(
            "comparisons",
            task.key,
            _text(tile),
            found.cost,
            found.default_cost,
            int(found.better),
            found.reason,
            self._kernel(task, tile),
        )

    def forget_stale_comparisons(self, task: KernelTask[Any]) -> None:
        """Those of kernels that have changed since: none of them is the best of its task any more."""
        rows = self._database.execute("SELECT tile, kernel FROM comparisons WHERE task = ?", (task.key,))
        for tile, kernel in rows.fetchall():
            if kernel != self._kernel(task, _choice(task.key, tile)):
                with self._database:
                    self._database.execute(
                        "DELETE FROM comparisons WHERE task = ? AND tile = ?", (task.key, tile)
                    )

    def best(self) -> dict[str, Record]:
        """Of every task in the folder that has something better than its default, what beats it by most."""
        rows = self._database.execute(
            "SELECT task, tile, cost, default_cost, kernel FROM comparisons WHERE better "
            "ORDER BY cost / default_cost DESC, rowid DESC"
        )
        return {task: Record(_choice(task, tile), *rest) for task, tile, *rest in rows}

    def count(self) -> int:
        query = "SELECT count(*) FROM trials WHERE tile != ?"
        return self._database.execute(query, (LIBRARY,)).fetchone()[0]

    def threads(self) -> list[int]:
        """How many the boards had in these trials, as far as it was written down."""
        rows = self._database.execute("SELECT DISTINCT conditions FROM trials")
        counts = {json.loads(conditions).get("threads") for (conditions,) in rows}
        return sorted(count for count in counts if count)

    def seeds(self) -> list[int]:
        return [row[0] for row in self._database.execute("SELECT DISTINCT seed FROM trials ORDER BY seed")]

    def add_network(self, name: str) -> list[str]:
        """All networks that were tuned in this folder."""
        with self._database:
            self._database.execute("INSERT OR IGNORE INTO networks VALUES (?)", (name,))
        return [row[0] for row in self._database.execute("SELECT name FROM networks ORDER BY name")]

    def _insert(self, table: str, *values: Any) -> None:
        marks = ", ".join("?" * len(values))
        with self._database:
            self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)


def _choice(key: str, tile: str) -> Choice:
    """Of a task and its choice as they are written."""
    return choice_from_json(json.loads(key)["kind"], json.loads(tile))


def _text(tile: Choice | str) -> str:
    return tile if isinstance(tile, str) else json.dumps(asdict(tile), sort_keys=True)


@contextlib.contextmanager
def open_trials(
    folder: Path, processor: Processor, target: KernelTarget, unit: str, seed: int
) -> Iterator[Trials]:
    """Raises UsageError where the folder holds trials of something else, or another tuning is using it; and,
    also in the block, BibenchError where they cannot be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be written: {error.strerror or error}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"Another tuning is working in {folder}.") from None
        with contextlib.closing(_open(folder / FILE)) as database:
            try:
                _same(database, folder, {"tvm": tvm.__version__, "unit": unit, **asdict(processor)})
                yield Trials(database, seed, target)
            except sqlite3.Error as error:
                raise BibenchError(f"The trials in {folder} cannot be kept: {error}.") from error
    finally:
        os.close(handle)


def _open(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path)
        database.executescript(_TABLES)
        for table in ("trials", "comparisons"):  # of a folder from before kernels had a digest
            if "kernel" not in {row[1] for row in database.execute(f"PRAGMA table_info({table})")}:
                database.execute(f"ALTER TABLE {table} ADD COLUMN kernel TEXT NOT NULL DEFAULT ''")
    except sqlite3.Error as error:
        raise UsageError(f"{path} is not a file of trials: {error}.") from error
    return database


def _same(database: sqlite3.Connection, folder: Path, about: dict[str, str]) -> None:
    with database:
        for what, value in about.items():
            database.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (what, value))
    found = dict(database.execute("SELECT what, value FROM about"))
    for what, value in about.items():
        if found[what] != value:
            raise UsageError(
                f"{folder} holds trials with {what} {found[what]!r}, and these are with {value!r}. "
                "Give another --out."
            )
