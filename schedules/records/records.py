"""Records of tuning: which choice was best for a task, on which processor, and how that was found out.

A file of records is JSON. It is for one processor and one TVM, since another code generator makes other code
of the same loops. It may come from anywhere: what does not fit is refused in a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from reprlib import repr as shown  # of what a file holds, as much as fits into a sentence
from typing import Any, cast, get_args, get_type_hints

import tvm

from schedules.records.choices import CHOICES
from schedules.records.digest import digest
from schedules.records.kernel_task import C, KernelTask
from schedules.targets.kernel_target import Choice, KernelTarget

FILE = "records.json"
SCHEMA_VERSION = 1
UNITS = ("seconds", "instructions", "model cycles")
SHIPPED = Path(__file__).parent
_MOST_BYTES = 16 << 20
_MOST_COST = 1e15  # in any unit
_MOST_WAKE_NS = 1e9


@dataclass(frozen=True)
class Processor:
    """What records are for: the name of our kernels' target, and LLVM's of the core."""

    kernels: str
    cpu: str


@dataclass(frozen=True)
class Record:
    """tile: what was chosen, of the class that the kind of its task has. cost, default_cost: of one call, in
    the unit of its file. kernel: the `digest` of what was measured; empty in a file from before there was
    one."""

    tile: Choice
    cost: float
    default_cost: float
    kernel: str


@dataclass(frozen=True)
class Records:
    """best: the key of a task -> its record; obtained: how, in a sentence; wake_ns: until a second thread
    works on its share of a kernel, where that was measured."""

    processor: Processor
    unit: str
    obtained: str
    best: dict[str, Record]
    wake_ns: float | None = None
    tvm: str = tvm.__version__

    def to_json(self) -> str:
        found = [{"task": json.loads(key), **asdict(record)} for key, record in sorted(self.best.items())]
        head = {"schema_version": SCHEMA_VERSION, "tvm": self.tvm, "processor": asdict(self.processor)}
        words = {"unit": self.unit, "obtained": self.obtained, "wake_ns": self.wake_ns}
        lines = ",\n    ".join(json.dumps(record, sort_keys=True) for record in found)
        start = json.dumps({**head, **words}, indent=2).removesuffix("\n}")
        return f'{start},\n  "records": [\n    {lines}\n  ]\n}}\n'


def read(path: Path) -> Records:
    """Raises ValueError with a sentence for a file that is not one of records."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path} is too large to be a file of records.")
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:  # also of a number of thousands of digits
        raise ValueError(f"{path} is not a file of records: {error}.") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version") if isinstance(content, dict) else None
        raise ValueError(
            f"{path} has schema version {shown(found)}, and this program reads {SCHEMA_VERSION}. Tune again."
        )
    try:
        processor = Processor(**_texts(content["processor"], ("kernels", "cpu")))
        texts = _texts({k: content[k] for k in ("tvm", "unit", "obtained")}, ("tvm", "unit", "obtained"))
        if texts["unit"] not in UNITS:
            raise ValueError(f"its unit is {shown(texts['unit'])}")
        best = dict(_record(entry) for entry in content["records"])
        wake_ns = content.get("wake_ns")  # a file from before it was measured has none
        if wake_ns is not None:
            wake_ns = _number("wake_ns", wake_ns, _MOST_WAKE_NS)
        return Records(processor, best=best, wake_ns=wake_ns, **texts)
    except (KeyError, TypeError, ValueError) as error:
        words = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is damaged: {words}.") from error


def _number(name: str, value: Any, most: float) -> float:
    if type(value) not in (int, float) or not 0 < value <= most:
        raise ValueError(f"its {name} is {shown(value)}, and not a number above 0 and up to {most:g}")
    return float(value)


def _texts(value: Any, names: Iterable[str]) -> dict[str, str]:
    if not isinstance(value, dict) or any(not isinstance(value.get(name), str) for name in names):
        raise ValueError(f"{', '.join(names)} should be texts")
    return {name: value[name] for name in names}


def _record(entry: Any) -> tuple[str, Record]:
    if not isinstance(entry, dict) or not isinstance(entry.get("task"), dict):
        raise ValueError("a record does not say what it is for")
    cost, default_cost = (_number(name, entry.get(name), _MOST_COST) for name in ("cost", "default_cost"))
    kernel = entry.get("kernel", "")
    if not isinstance(kernel, str):
        raise ValueError("the kernel of a record is not a digest")
    key = json.dumps(entry["task"], sort_keys=True, separators=(",", ":"))
    chosen = choice_from_json(entry["task"].get("kind"), entry.get("tile"))
    return key, Record(chosen, cost, default_cost, kernel)


_LATER = {"abreast"}  # what choices have that they had not when records were first made


def choice_from_json(kind: Any, value: Any) -> Choice:
    """Raises ValueError, without the final stop, for what `asdict` of a choice for such a kernel does not
    give."""
    if not isinstance(kind, str) or kind not in CHOICES:
        raise ValueError(f"a record is for a kernel of the unknown kind {shown(kind)}")
    made = CHOICES[kind]
    names = [field.name for field in fields(made)]
    if not isinstance(value, dict) or not set(names) - _LATER <= set(value) <= set(names):
        raise ValueError(f"a tile has {', '.join(names)}")
    types = get_type_hints(made)
    for name in value:
        kind_of_value, allowed = type(value[name]), get_args(types[name]) or (types[name],)
        in_range = kind_of_value is not int or 0 < value[name] < 1 << 16
        if kind_of_value not in allowed or not in_range:
            raise ValueError(f"the {name} of a tile is {shown(value[name])}")
    return made(**value)


class WrongRecord(ValueError):
    """A record whose choice its task cannot have; the message is a sentence."""


class Chooser:
    """Gives the kernels of a network, which are for `target`, what a file of records has for them; `used`
    lists what they took, and `stale` the tasks whose kernels have changed since they were measured, and get
    nothing."""

    def __init__(self, source: str, records: Records | None, target: KernelTarget):
        self.source, self.records, self._target = source, records, target
        self.used: dict[str, dict[str, Any]] = {}
        self.stale: dict[str, str] = {}  # by key, as a title

    def __call__(self, task: KernelTask[C]) -> C | None:
        record = self.records.best.get(task.key) if self.records else None
        if record is None or self.records is None:
            return None
        chosen = cast(C, record.tile)  # read as what the kind in the key has
        if reason := task.refusal(chosen):
            raise WrongRecord(f"{self.source} has a record for {task.title} that cannot be: {reason}.")
        if record.kernel != digest(task, chosen, self._target):
            self.stale[task.key] = task.title
            return None
        self.used[task.key] = {
            "layer": task.title,
            "task": json.loads(task.key),
            "source": self.source,
            "unit": self.records.unit,
            **asdict(record),
        }
        return chosen

    @property
    def kernels(self) -> KernelTarget:
        """The target, with what was measured of its processor."""
        waking = self.records.wake_ns if self.records else None
        return self._target if waking is None else replace(self._target, wake_ns=waking)

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


def tuned(folder: Path, processor: Processor, target: KernelTarget) -> Chooser:
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
    return Chooser(str(path), records, target)


def shipped(processor: Processor, target: KernelTarget, folder: Path = SHIPPED) -> Chooser:
    """The records that come with this program for a processor, where there are any."""
    for path in sorted(folder.glob("*.json")):
        records = read(path)
        if records.processor == processor and records.tvm == tvm.__version__:
            return Chooser(path.name, records, target)
    return Chooser("", None, target)
