"""The artifact, a folder with `model.so` and `manifest.json`: written whole, read with suspicion, run.

Needs TVM and numpy, and neither torch nor onnx: this is what a board imports.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bibench_tvm.errors import BibenchError, UsageError
from bibench_tvm.threads import use_threads

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.so"

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "model": str,
    "target": dict,
    "inputs": list,
    "outputs": list,
    "layers": list,
    "size_bytes": dict,
    "verification": dict,
    "tuning": dict,
    "versions": dict,
    "files": dict,
}
_DTYPES = ["bool", *(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64))]
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armv8l": "armv7l"}
_SCRATCH = ".bibench-"


class Artifact:
    """A compiled network. `run` takes and returns numpy arrays; `manifest` is the parsed manifest.json."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.manifest = manifest
        self._vm: Any = None

    def run(self, *inputs: np.ndarray) -> Any:
        """Run the network on this machine.

        inputs: one array per input of the manifest, of its shape and dtype; the first extent of all of them
        may be a multiple of the compiled one, and is then cut into that many runs. Returns the output, or a
        tuple of them. Raises BibenchError where the artifact is for another processor, UsageError where the
        inputs do not fit.
        """
        from bibench_tvm.presets import host_features

        here = platform.machine().lower()
        self.check_processor(_MACHINES.get(here, here), host_features(), "this machine")
        return self._run_each(inputs, self._run_once)

    def run_on(self, board: Any, *inputs: np.ndarray) -> Any:
        """Run the network on a `rpc.session.Board`, as `run` does here. Raises RemoteError too."""
        self.check_processor(board.info.machine, board.info.features, str(board))
        self._arrays(inputs)  # before anything is sent
        built = self.manifest["versions"]["tvm"]
        if board.info.tvm != built:
            raise BibenchError(
                f"{self.folder} was compiled with TVM {built}, and {board} has TVM {board.info.tvm}. Install "
                "the same version on both."
            )
        network = board.network(self.folder / MODEL)
        return self._run_each(inputs, network.run)

    def _run_each(
        self, inputs: Sequence[np.ndarray], run_once: Callable[[list[np.ndarray]], list[np.ndarray]]
    ) -> Any:
        parts = self._arrays(inputs)
        results = [run_once(list(arrays)) for arrays in zip(*parts, strict=True)]
        joined = [
            np.concatenate(columns) if len(results) != 1 else columns[0]
            for columns in zip(*results, strict=True)
        ]
        return joined[0] if len(joined) == 1 else tuple(joined)

    def _arrays(self, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Each input cut into the arrays of its runs. Raises UsageError where the inputs do not fit."""
        specs = self.manifest["inputs"]
        if len(inputs) != len(specs):
            names = ", ".join(spec["name"] for spec in specs)
            takes = f"{len(specs)} inputs" if len(specs) != 1 else "1 input"
            raise UsageError(f"The network takes {takes} ({names}), but {len(inputs)} were given.")
        arrays = [np.asarray(x) for x in inputs]
        runs = {_runs(array, spec) for array, spec in zip(arrays, specs, strict=True)}
        if len(runs) != 1:
            raise UsageError(f"The inputs disagree about the batch: they make {sorted(runs)} runs.")
        count = runs.pop()
        if count != 1 and not all(spec["shape"] for spec in self.manifest["outputs"]):
            raise UsageError("The network has an output without a batch; give it one batch at a time.")
        return [np.split(array, count) if count != 1 else [array] for array in arrays]

    def _run_once(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        import tvm

        if self._vm is None:
            self._vm = load_vm(self.folder / MODEL)
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
        try:
            return flatten(self._vm["main"](*tensors))
        except Exception as error:  # the virtual machine raises what it likes
            raise BibenchError(f"{self.folder} failed as it ran: {_last_line(error)}") from error

    def check_processor(self, machine: str, features: Collection[str], where: str) -> None:
        """Raise BibenchError where the artifact is for another processor than that of `where`."""
        target = self.manifest["target"]
        there = target["triple"].split("-")[0]
        there = {"arm64": "aarch64"}.get(there, "armv7l" if there.startswith("arm") else there)
        if machine not in (there, "unknown"):
            raise BibenchError(
                f"{self.folder} is for {target['name']} ({there}), and {where} is {machine}. Run it on "
                "such a board, or compile it again with another --target."
            )
        if machine != "unknown" and (lacking := sorted(set(target["features"]) - set(features))):
            raise BibenchError(
                f"{self.folder} is for {target['name']}, and the processor of {where} lacks "
                f"{', '.join(lacking)}. Compile again with a --target that fits it."
            )


def _runs(array: np.ndarray, spec: Mapping[str, Any]) -> int:
    """How many runs of the compiled shape this array makes."""
    shape, dtype, name = tuple(spec["shape"]), spec["dtype"], spec["name"]
    if str(array.dtype) != dtype:
        raise UsageError(f"Input {name!r} is {array.dtype}, and the network takes {dtype}.")
    fits = array.ndim == len(shape) and array.shape[1:] == shape[1:]
    if not fits or (shape and (array.shape[0] % shape[0] or not array.shape[0])):
        raise UsageError(
            f"Input {name!r} has shape {array.shape}, and the network takes {shape}, or several of these in "
            "a row."
        )
    return array.shape[0] // shape[0] if shape else 1


def flatten(value: Any) -> list[np.ndarray]:
    """Tensors in nested tuples -> numpy arrays, in order."""
    if hasattr(value, "numpy"):
        return [value.numpy()]
    return [array for item in value for array in flatten(item)]


def load_vm(library: Path) -> Any:
    """The Relax virtual machine over a library on this machine's CPU. Raises BibenchError."""
    import tvm
    from tvm import relax

    from rpc import machine

    machine.settle_threads()
    try:
        return relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    except Exception as error:  # TVM and the dynamic linker raise what they like
        raise BibenchError(f"{library} cannot be loaded: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load(folder: str | os.PathLike[str], *, threads: int | None = None) -> Artifact:
    """Read an artifact. Raises BibenchError where the folder is not a whole artifact of this version.

    threads: see `threads.use_threads`; left out, TVM decides.
    """
    if threads is not None:
        use_threads(threads)
    folder = Path(folder)
    manifest = _read_manifest(folder)
    import tvm

    built = manifest["versions"].get("tvm")
    if built != tvm.__version__:
        raise BibenchError(
            f"{folder} was compiled with TVM {built}, and TVM {tvm.__version__} is installed here. Compile "
            "it again, or install that version."
        )
    library = folder / MODEL
    if not library.is_file():
        raise BibenchError(f"{folder} has no {MODEL}: the artifact is not whole. Compile it again.")
    if digest(library) != manifest["files"].get(MODEL):
        raise BibenchError(
            f"{library} is not the file that the manifest describes: it was damaged or exchanged."
        )
    return Artifact(folder, manifest)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    if not path.is_file():
        raise UsageError(f"{folder} is not an artifact: it has no {MANIFEST}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise BibenchError(f"{path} cannot be read: {error}.") from error
    if not isinstance(manifest, dict):
        raise BibenchError(f"{path} is not a manifest: it holds a {type(manifest).__name__}.")
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BibenchError(
            f"{path} has schema version {version!r}, and this program reads version {SCHEMA_VERSION}. "
            "Compile the network again with this program, or use the program that wrote it."
        )
    for field, kind in _FIELDS.items():
        if not isinstance(manifest.get(field), kind):
            raise BibenchError(f"{path} is damaged: its field {field!r} is missing or not of its type.")
    target = manifest["target"]
    texts = all(isinstance(target.get(key), str) for key in ("name", "triple", "cpu"))
    if not texts or not _is_list(target.get("features"), str):
        raise BibenchError(f"{path} is damaged: its 'target' does not say name, triple, cpu and features.")
    for spec in (*manifest["inputs"], *manifest["outputs"]):
        if not _is_spec(spec):
            raise BibenchError(f"{path} is damaged: an input or output does not say name, shape and dtype.")
    return manifest


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _is_spec(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and value.get("dtype") in _DTYPES
        and _is_list(value.get("shape"), int)
        and all(size > 0 for size in value["shape"])
    )


@contextlib.contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """A folder in `out`, and so on the same disk, to build an artifact in; it is gone afterwards.

    Made first of all, it shows early whether `out` can be written; where the work fails, an `out` that was
    made for it goes too. What an earlier program left that was killed is cleared away: a living one holds a
    lock on its scratch folder. Raises UsageError.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            for left in out.glob(f"{_SCRATCH}*"):
                with contextlib.suppress(OSError), _locked(left, wait=False):
                    shutil.rmtree(left)
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=out))
            handle = os.open(scratch, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise _unwritable(UsageError, out, error) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)
        with contextlib.suppress(OSError):  # the first folder that is not empty ends it
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError where another holds it and one is not to wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def _unwritable(kind: type[BibenchError], out: Path, error: OSError) -> BibenchError:
    return kind(f"The folder {out} cannot be written: {error.strerror or error}.")


def install(scratch: Path, out: Path, manifest: dict[str, Any]) -> Artifact:
    """Move a finished artifact into `out`.

    The old manifest goes first and the new one comes last: a process that dies between leaves a folder
    without a manifest, which `load` refuses, and never one that is half of each.
    """
    manifest = {**manifest, "files": {MODEL: digest(scratch / MODEL)}}
    text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    try:
        (scratch / MANIFEST).write_text(text, encoding="utf-8")
        with _locked(out):
            (out / MANIFEST).unlink(missing_ok=True)
            os.replace(scratch / MODEL, out / MODEL)
            os.replace(scratch / MANIFEST, out / MANIFEST)
    except OSError as error:
        raise _unwritable(BibenchError, out, error) from error
    return Artifact(out, manifest)
