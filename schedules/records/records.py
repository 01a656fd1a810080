"""Records of tuning: which tile was best for a task, on which processor, and how that was found out.

A file of records is JSON. It is for one processor and one TVM, since another code generator makes other code
of the same loops. It may come from anywhere: what does not fit is refused in a sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tvm

from schedules.records.digest import digest
from schedules.records.kernel_task import KernelTask
from schedules.records.space import refusal
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget, Tile

FILE = "records.json"
SCHEMA_VERSION = 1
UNITS = ("seconds", "instructions", "model cycles")
SHIPPED = Path(__file__).parent
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Processor:
    """What records are for: the name of our kernels' target, and LLVM's of the core."""

    kernels: str
    cpu: str

    @property
    def target(self) -> KernelTarget:
        return next(target for target in ALL if target.name == self.kernels)


@dataclass(frozen=True)
class Record:
    """cost, default_cost: of one call, in the unit of its file. kernel: the `digest` of what was measured;
    empty in a file from before there was one."""

    tile: Tile
    cost: float
    default_cost: float
    kernel: str


@dataclass(frozen=True)
class Records:
    """best: the key of a task -> its record; obtained: how, in a sentence."""

    processor: Processor
    unit: str
    obtained: str
    best: dict[str, Record]
    tvm: str = tvm.__version__

    def to_json(self) -> str:
        found = [{"task": json.loads(key), **asdict(record)} for key, record in sorted(self.best.items())]
        head = {"schema_version": SCHEMA_VERSION, "tvm": self.tvm, "processor": asdict(self.processor)}
        words = {"unit": self.unit, "obtained": self.obtained}
        lines = ",\n    ".join(json.dumps(record, sort_keys=True) for record in found)
        start = json.dumps({**head, **words}, indent=2).removesuffix("\n}")
        return f'{start},\n  "records": [\n    {lines}\n  ]\n}}\n'


def read(path: Path) -> Records:
    """Raises ValueError with a sentence for a file that is not one of records."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path} is too large to be a file of records.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a file of records: {error}.") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version") if isinstance(content, dict) else None
        raise ValueError(
            f"{path} has schema version {found!r}, and this program reads {SCHEMA_VERSION}. Tune again."
        )
    try:
        processor = Processor(**_texts(content["processor"], ("kernels", "cpu")))
        texts = _texts({k: content[k] for k in ("tvm", "unit", "obtained")}, ("tvm", "unit", "obtained"))
        if texts["unit"] not in UNITS:
            raise ValueError(f"its unit is {texts['unit']!r}")
        best = dict(_record(entry) for entry in content["records"])
        return Records(processor, best=best, **texts)
    except (KeyError, TypeError, ValueError) as error:
        words = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is damaged: {words}.") from error


def _texts(value: Any, names: Iterable[str]) -> dict[str, str]:
    if not isinstance(value, dict) or any(not isinstance(value.get(name), str) for name in names):
        raise ValueError(f"{', '.join(names)} should be texts")
    return {name: value[name] for name in names}


def _record(entry: Any) -> tuple[str, Record]:
    if not isinstance(entry, dict) or not isinstance(entry.get("task"), dict):
        raise ValueError("a record does not say what it is for")
    costs: list[Any] = [entry.get("cost"), entry.get("default_cost")]
    if not all(type(c) in (int, float) and math.isfinite(c) and c > 0 for c in costs):
        raise ValueError("the cost of a record is not a number above 0")
    kernel = entry.get("kernel", "")
    if not isinstance(kernel, str):
        raise ValueError("the kernel of a record is not a digest")
    key = json.dumps(entry["task"], sort_keys=True, separators=(",", ":"))
    return key, Record(tile_from_json(entry.get("tile")), float(costs[0]), float(costs[1]), kernel)


def tile_from_json(value: Any) -> Tile:
    """Raises ValueError, without the final stop, for what `asdict(tile)` does not give."""
    names = [field.name for field in fields(Tile)]
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise ValueError(f"a tile has {', '.join(names)}")
    for name in names:
        kind = type(value[name])
        free = name in ("rows", "together", "word") and value[name] is None
        right = kind is bool if name == "blocks_outside" else kind is int and 0 < value[name] < 1 << 16
        if not (right or free):
            raise ValueError(f"the {name} of a tile is {value[name]!r}")
    return Tile(**value)


class WrongRecord(ValueError):
    """A record whose tile its task cannot have; the message is a sentence."""


class Chooser:
    """Gives the kernels of a network the tiles of a file of records; `used` lists what they took, and `stale`
    the tasks whose kernels have changed since they were measured, and get no tile."""

    def __init__(self, source: str, records: Records | None):
        self.source, self.records = source, records
        self.used: dict[str, dict[str, Any]] = {}
        self.stale: dict[str, str] = {}  # by key, as a title

    def __call__(self, task: KernelTask) -> Tile | None:
        record = self.records.best.get(task.key) if self.records else None
        if record is None or self.records is None:
            return None
        if reason := refusal(task, record.tile):
            raise WrongRecord(f"{self.source} has a record for {task.title} that cannot be: {reason}.")
        if record.kernel != digest(task, record.tile, self.records.processor.target):
            self.stale[task.key] = task.title
            return None
        self.used[task.key] = {
            "layer": task.title,
            "task": json.loads(task.key),
            "source": self.source,
            "unit": self.records.unit,
            **asdict(record),
        }
        return record.tile

    @property
    def remark(self) -> str:
        """A sentence about the records that were not used; empty where all were."""
        if not self.stale:
            return ""
        count, layers = len(self.stale), ", ".join(dict.fromkeys(self.stale.values()))
        records, are = ("records", "are") if count > 1 else ("record", "is")
        return (
            f"{count} {records} of {self.source} {are} not used, since the kernels have changed that they "
            f"were measured on; tune again for: {layers}."
        )


def tuned(folder: Path, processor: Processor) -> Chooser:
    """The records that `tune --out` wrote. Raises ValueError where they are for something else."""
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {FILE}: it is not a folder that tune wrote, or none is done yet.")
    records = read(path)
    if records.tvm != tvm.__version__:
        raise ValueError(
            f"{path} was made with TVM {records.tvm}, and this is TVM {tvm.__version__}, which makes other "
            "code of the same schedule. Tune again."
        )
    if records.processor != processor:
        made, asked = (f"{p.cpu} ({p.kernels} kernels)" for p in (records.processor, processor))
        raise ValueError(f"{path} is for {made}, and not for {asked}. Tune for that, or leave --tuned out.")
    return Chooser(str(path), records)


def shipped(processor: Processor, folder: Path = SHIPPED) -> Chooser:
    """The records that come with this program for a processor, where there are any."""
    for path in sorted(folder.glob("*.json")):
        records = read(path)
        if records.processor == processor and records.tvm == tvm.__version__:
            return Chooser(path.name, records)
    return Chooser("", None)
