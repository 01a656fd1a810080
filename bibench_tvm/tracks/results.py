"""Result files: one job, one file, written whole. They are the database: copied, merged and kept in git."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.cli.whole_file import whole_file

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

VERSION = 1
FOLDER = "results"
CONTENT = "content"  # among a result's hashes: that of all else in it
Track = Literal["learning_task", "architecture", "corruption", "training", "complexity", "inference"]
TRACKS: tuple[Track, ...] = (
    *("learning_task", "architecture", "corruption"),
    *("training", "complexity", "inference"),
)
Kind = Literal["measured", "stand-in", "emulated", "model", "paper"]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What a result is of: two results with the same key are the same job, done again.

    Attributes:
        arch: with its size, "resnet20@small"; division: "closed" for the recipe of the paper as it is,
            "open" for any other; settings: of the recipe, with the algorithm's numbers.
        corruption: the task of corrupted data; device, threads, library: of an inference.
    """

    track: Track
    task: str
    arch: str
    algorithm: str
    variant: str = "paper"
    division: Literal["closed", "open"] = "closed"
    recipe: str = ""
    settings: dict[str, str] = {}
    seed: int | None = None
    profile: str
    corruption: str | None = None
    device: str | None = None
    threads: int | None = None
    library: str | None = None


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its unit, "1" for a share or a factor, and where it is from."""

    name: str
    value: float
    unit: str
    kind: Kind


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of a network that was timed.

    Attributes:
        reason: why it stayed float, empty for a binary one; macs: its products, of a whole run.
        bytes: of its weights and operand as they are kept, each read once; None where not known.
        cost: what it took within the network, in the unit of the figure "latency".
        alone: what the same layer takes by itself, by the library that computes it, in that unit.
    """

    name: str
    op: str
    binarized: bool
    reason: str = ""
    macs: int
    bytes: int | None = None
    cost: float
    alone: dict[str, float] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a job found.

    Attributes:
        command: what was run, after `python -m`; paths in the folder of all results are from there.
        versions: of the libraries; commit: of the project, "" where it is no checkout.
        machine: its processor, cores and system, and of an inference what a core can do at most,
            "binary_products_per_s" and "float_products_per_s"; conditions: its load at the end.
        hashes: of the "job" with all that it needed; of "data" and "checkpoint", where there are any; of all
            else in the file, as "content", which it is written with.
        layers: of an inference, in the order of the run.
        ended: ISO 8601, UTC; seconds: that the job took.
    """

    schema_version: int = VERSION
    key: Key
    figures: list[Figure]
    command: list[str]
    versions: dict[str, str]
    commit: str
    machine: dict[str, str | int]
    conditions: dict[str, float]
    hashes: dict[str, str] = {}
    layers: list[Layer] = []
    ended: str
    seconds: float

    def figure(self, name: str) -> float | None:
        """The value of a figure, None where there is none of that name."""
        return next((figure.value for figure in self.figures if figure.name == name), None)


def path_of(folder: Path, key: Key) -> Path:
    """Readable as far as it goes; the digest of the whole key makes it one key's own."""
    digest = hashlib.sha256(msgspec.json.encode(key, order="deterministic")).hexdigest()[:10]
    parts = (key.track, key.task, key.arch, f"{key.algorithm}-{digest}.json")
    return folder.joinpath(FOLDER, *(re.sub(r"[^\w.@+-]", "_", part) for part in parts))


def hash_of(result: Result) -> str:
    """Of all that it says but this hash itself, defaults too: a field more is another VERSION."""
    hashes = {name: value for name, value in result.hashes.items() if name != CONTENT}
    content = msgspec.to_builtins(msgspec.structs.replace(result, hashes=hashes))
    # A whole number where a float belongs becomes one, as it does when it is read.
    whole = msgspec.convert(content, Result)
    return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


def edited(result: Result) -> bool:
    """Whether it says something else than was written."""
    return result.hashes.get(CONTENT, "") not in ("", hash_of(result))


def write(folder: Path, result: Result) -> Path:
    """Replaces an earlier result of the same key; the file appears whole or not at all."""
    path = path_of(folder, result.key)
    hashes = result.hashes | {CONTENT: hash_of(result)}
    result = msgspec.structs.replace(result, hashes=hashes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(result, order="deterministic")) + b"\n")
    return path


def read(path: Path) -> Result:
    """Raises BibenchError, a sentence, for a file that is no result of this version."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise BibenchError(f"{path} cannot be read: {error.strerror}.") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BibenchError(f"{path} is no result: {error}.") from error
    if result.schema_version != VERSION:
        raise BibenchError(
            f"{path} is a result of version {result.schema_version}, and this program reads {VERSION}."
        )
    return result


def read_each(folder: Path) -> list[tuple[Path, Result | BibenchError]]:
    """Every file of results below `folder`, by its path, with the error where it is none.

    Raises:
        BibenchError: there is no such folder.
    """
    if not folder.is_dir():
        raise BibenchError(f"There is no folder {folder}.")
    found: list[tuple[Path, Result | BibenchError]] = []
    for path in sorted((folder / FOLDER).rglob("*.json")):
        try:
            found.append((path, read(path)))
        except BibenchError as error:
            found.append((path, error))
    return found


def read_all(folder: Path) -> tuple[list[Result], list[str]]:
    """All results below `folder`, by their paths, and a sentence on each file that is left out: it is none,
    or not in the place of its result, as a copy is.

    Raises:
        BibenchError: there is no such folder.
    """
    results, left_out = [], []
    for path, found in read_each(folder):
        if isinstance(found, BibenchError):
            left_out.append(str(found))
        elif wrong := misplaced(folder, path, found):
            left_out.append(f"{wrong}, and is left out.")
        else:
            results.append(found)
    return results, left_out


def misplaced(folder: Path, path: Path, result: Result) -> str:
    """What is wrong with the place of the file `path` of a result, without a full stop; "" if nothing is."""
    place = path_of(folder, result.key)
    return "" if path == place else f"{path} holds the result that belongs into {place}"


def grouped(of: Iterable[T], by: Callable[[T], K]) -> dict[K, list[T]]:
    """Those that have the same of something together, in the order in which they come."""
    groups: dict[K, list[T]] = {}
    for one in of:
        groups.setdefault(by(one), []).append(one)
    return groups


def by_profile(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results of different profiles are not compared."""
    return grouped(results, lambda result: result.key.profile)


def schema() -> dict[str, Any]:
    """The JSON Schema of a result file."""
    return msgspec.json.schema(Result)


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """A flat row for each figure: the key's fields, then the figure's."""
    return [
        {
            **{
                name: value
                for name, value in msgspec.to_builtins(result.key).items()
                if not isinstance(value, dict)
            },
            "settings": " ".join(f"{key}={value}" for key, value in result.key.settings.items()),
            **msgspec.to_builtins(figure),
        }
        for result in results
        for figure in result.figures
    ]
