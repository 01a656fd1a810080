"""The artifact, a folder with a network and `manifest.json`: read with suspicion, run. `folder` writes it.

Needs TVM and numpy, and neither torch nor onnx: this is what a board imports.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import UNSET

from bibench_tvm.artifact.folder import STANDALONE, files_of, stored_name
from bibench_tvm.artifact.manifest import MODEL, Manifest, Tensor, encode, read
from bibench_tvm.artifact.threads import run_on, said, use_threads
from bibench_tvm.artifact.trying import Trial
from bibench_tvm.cli.errors import BibenchError, UsageError, as_path, first_line
from rpc.machine_name import machine_name, this_machine

if TYPE_CHECKING:
    from rpc.devices.build import NetworkInC
    from rpc.library import Library

_ATTEMPTS = 20  # to read a folder that is being replaced
_ALIGNMENT = 64  # bytes: kernels read whole vectors


class Artifact:
    """A compiled network, as it was in `folder` when it was loaded, whatever lies there now.

    `run` takes and returns numpy arrays; `record` is the manifest, `manifest` the same as in JSON. One
    artifact may be run from several threads: where networks run on one thread each, so many run at once;
    where on more, the callers take turns, each with all of the threads. Where nobody says how many, the first
    runs find out what is faster.
    """

    def __init__(self, folder: Path, record: Manifest, library: Library):
        from rpc import machine

        self.folder = folder
        self.record = record
        self._library = library
        self._takes = [(tensor.shape, np.dtype(tensor.dtype)) for tensor in record.inputs]
        self._gives = [(tensor.shape, np.dtype(tensor.dtype)) for tensor in record.outputs]
        self._fits_here = False
        self._shares = record.shared_kernels != 0  # else more threads than one would only wait
        # Where nobody says how many threads.
        self._trial = Trial(machine.fast_cores() if self._shares else 1)
        self._idle: list[_Machine] = []  # of which each call takes one, and makes one where there is none

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json as dictionaries and lists."""
        return msgspec.json.decode(encode(self.record))

    def files(self) -> list[Path]:
        """Where it lies."""
        return files_of(self.folder, self.record)

    def __reduce__(self) -> Any:
        """For another process: the same artifact, whatever is in the folder by then."""
        return artifact_of, (self.folder, self.record, self._library.read())

    def run(self, *inputs: np.ndarray, out: np.ndarray | Sequence[np.ndarray] | None = None) -> Any:
        """Run the network on this machine.

        inputs: one array per input of the manifest, of its shape and dtype; where the first axis is a batch,
        as the manifest says, the first extent of all of them may be a multiple of the compiled one, and is
        then cut into that many runs. An input that is contiguous and begins at a multiple of 64 bytes is
        read where it is, another one is copied first.
        out: arrays to write the outputs to, of their shapes and dtypes; the one, or a sequence of them.

        Returns the output, or a tuple of them: those of `out`, or new arrays. Raises BibenchError where the
        artifact is for another processor, UsageError where the inputs do not fit.
        """
        if not self._fits_here:
            self.check_processor(*_here(), "this machine")
            self._fits_here = True
        arrays = _arrays(inputs)
        count = self._runs(arrays)
        given = None if out is None else self._outputs(out, count)
        parts = [arrays] if count == 1 else _parts(arrays, count)
        threads = said()
        if threads is None:
            results = self._trial.call(self._run_here, parts)
        else:
            results = run_on(threads if self._shares else 1, functools.partial(self._run_here, parts))
        return _joined(results, given)

    def run_on(self, board: Any, *inputs: np.ndarray) -> Any:
        """Run the network on a `rpc.session.Board` or a `rpc.devices.device.Device`, as `run` does here.
        Raises RemoteError too."""
        self.check_processor(board.info.machine, board.info.features, str(board))
        self._runs(_arrays(inputs))  # before anything is sent
        return self.sent_to(board)(*inputs)

    def sent_to(self, board: Any) -> Callable[..., Any]:
        """What runs the network there as often as it is called, as `run_on` does."""
        self.check_processor(board.info.machine, board.info.features, str(board))
        built = self.record.versions["tvm"]
        if not board.takes_c and board.info.tvm != built:
            raise BibenchError(
                f"{self.folder} was compiled with TVM {built}, and {board} has TVM {board.info.tvm}. Install "
                "the same version on both."
            )
        network = self.network_on(board)

        def run(*inputs: np.ndarray) -> Any:
            arrays = _arrays(inputs)
            return _joined(list(network.run_each(_parts(arrays, self._runs(arrays)))))

        return run

    def network_on(self, board: Any) -> Any:
        """The `rpc.session.Network` of this artifact on a `rpc.session.Board`, or a `NetworkOnDevice` on a
        `rpc.devices.device.Device`, sent there anew."""
        if board.takes_c:
            return board.network_in_c(self.network_in_c(), len(self.record.inputs))
        return board.network(self.folder / MODEL, self._library.read())

    def network_in_c(self) -> NetworkInC:
        """The library for C, as the manifest describes it. Raises BibenchError where there is none."""
        from rpc.devices.build import NetworkInC

        made = self.record.standalone
        if made is UNSET:
            raise BibenchError(
                f"{self.folder} has no library for C, and a device without TVM runs no other. Compile it "
                "again with --standalone."
            )
        name = made.name
        files = {}
        for file in f"lib{name}.a", f"{name}.h", f"{name}_threads.h", f"{name}_threads.c":
            path = self.folder / STANDALONE / file
            try:
                files[file] = path.read_bytes()
            except OSError as error:
                raise BibenchError(f"{path} cannot be read: {error.strerror or error}.") from error
            if hashlib.sha256(files[file]).hexdigest() != made.files.get(file):
                raise BibenchError(
                    f"{path} is not the file that the manifest describes: it was damaged or exchanged."
                )
        outputs = [np.zeros(shape, dtype) for shape, dtype in self._gives]
        return NetworkInC(name, files, outputs)

    def _runs(self, arrays: Sequence[np.ndarray]) -> int:
        """How many runs these arrays make. Raises UsageError where they do not fit."""
        takes = self._takes
        if len(arrays) == len(takes) and all(
            array.shape == shape and array.dtype == dtype
            for array, (shape, dtype) in zip(arrays, takes, strict=True)
        ):
            return 1
        specs = self.record.inputs
        if len(arrays) != len(specs):
            names = ", ".join(spec.name for spec in specs)
            count = f"{len(specs)} inputs" if len(specs) != 1 else "1 input"
            raise UsageError(f"The network takes {count} ({names}), but {len(arrays)} were given.")
        alone = self.record.one_batch_only or ""
        runs = {_runs(array, spec, alone) for array, spec in zip(arrays, specs, strict=True)}
        if len(runs) != 1:
            raise UsageError(f"The inputs disagree about the batch: they make {sorted(runs)} runs.")
        if not all(shape for shape, _ in self._gives):  # of an artifact that does not say `one_batch_only`
            raise UsageError("The network has an output without a batch; give it one batch at a time.")
        return runs.pop()

    def _outputs(self, out: np.ndarray | Sequence[np.ndarray], count: int) -> list[np.ndarray]:
        """The arrays of `out`, if the outputs of so many runs can be written there."""
        arrays = [out] if isinstance(out, np.ndarray) else list(out)
        if len(arrays) != len(self._gives):
            raise UsageError(f"The network has {len(self._gives)} outputs, but out has {len(arrays)} arrays.")
        specs = self.record.outputs
        for array, spec, (shape, dtype) in zip(arrays, specs, self._gives, strict=True):
            whole = (count * shape[0], *shape[1:]) if count != 1 else shape
            if not isinstance(array, np.ndarray) or array.shape != whole or array.dtype != dtype:
                found = (
                    f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                )
                raise UsageError(f"Output {spec.name!r} is {dtype} {whole}, and out has {found} for it.")
            if not array.flags.writeable:
                raise UsageError(f"The array in out for output {spec.name!r} cannot be written to.")
        return arrays

    def _run_here(self, parts: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
        try:
            machine = self._idle.pop()
        except IndexError:
            machine = _Machine(self._library, self._takes, f"{self.folder / MODEL}")
        try:
            return [machine.run(part) for part in parts]
        except Exception as error:  # the virtual machine raises what it likes
            raise BibenchError(f"{self.folder} failed as it ran: {_last_line(error)}") from error
        finally:
            self._idle.append(machine)

    def check_processor(self, machine: str, features: Collection[str], where: str) -> None:
        """Raise BibenchError where the artifact is for another processor than that of `where`."""
        target = self.record.target
        there = machine_name(target.triple)
        if machine not in (there, "unknown"):
            raise BibenchError(
                f"{self.folder} is for {target.name} ({there}), and {where} is {machine}. Run it on "
                "such a board, or compile it again with another --target."
            )
        if MODEL not in self.record.files:
            raise BibenchError(
                f"{self.folder} is a library for C alone: link its standalone folder into a program."
            )
        if machine != "unknown" and (lacking := sorted(set(target.features) - set(features))):
            raise BibenchError(
                f"{self.folder} is for {target.name}, and the processor of {where} lacks "
                f"{', '.join(lacking)}. Compile again with a --target that fits it."
            )


class _Machine:
    """A virtual machine and memory for its inputs. It runs one call at a time, in any thread."""

    def __init__(self, library: Library, takes: Sequence[tuple[tuple[int, ...], np.dtype]], name: str):
        import tvm

        self._main = _start(library, name)["main"]
        self._tensors = [tvm.runtime.empty(shape, str(dtype)) for shape, dtype in takes]
        self._copies = [np.from_dlpack(tensor) for tensor in self._tensors]
        self._read_in_place = tvm.runtime.from_dlpack

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One run, on arrays of the compiled shapes. The outputs have memory of their own."""
        tensors = []
        for array, tensor, copy in zip(arrays, self._tensors, self._copies, strict=True):
            flags = array.flags
            # numpy lends no array that is read-only.
            if flags.c_contiguous and flags.writeable and array.ctypes.data % _ALIGNMENT == 0:
                tensors.append(self._read_in_place(array))
            else:
                np.copyto(copy, array)
                tensors.append(tensor)
        return flatten(self._main(*tensors))


@functools.cache
def _here() -> tuple[str, frozenset[str]]:
    """(processor, its features): what an artifact is compared with that is to run here."""
    from bibench_tvm.artifact.host import host_features

    return this_machine(), host_features()


def _arrays(inputs: Sequence[Any]) -> list[np.ndarray]:
    """Raises UsageError for what numpy makes no array of."""
    try:
        # PyTorch leaves to the caller what becomes of gradients.
        return [np.asarray(x.detach() if hasattr(x, "detach") else x) for x in inputs]
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"An input is no array, and numpy makes none of it: {first_line(error)}") from error


def _parts(arrays: Sequence[np.ndarray], count: int) -> list[list[np.ndarray]]:
    """The inputs of each of so many runs."""
    return [list(part) for part in zip(*(np.split(array, count) for array in arrays), strict=True)]


def _joined(results: Sequence[Sequence[np.ndarray]], given: Sequence[np.ndarray] | None = None) -> Any:
    """The outputs of all runs, in the arrays `given` if there are some: one array, or a tuple of them."""
    columns = list(zip(*results, strict=True))
    if given is None:
        joined = [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in columns]
    else:
        joined = list(given)
        for array, parts in zip(joined, columns, strict=True):
            if len(parts) == 1:
                np.copyto(array, parts[0])
            else:
                np.concatenate(parts, out=array)
    return joined[0] if len(joined) == 1 else tuple(joined)


def _runs(array: np.ndarray, spec: Tensor, alone: str) -> int:
    """How many runs of the compiled shape this array makes. alone: why it may be no more than one, or ""."""
    shape, dtype, name = spec.shape, spec.dtype, spec.name
    if str(array.dtype) != dtype:
        raise UsageError(f"Input {name!r} is {array.dtype}, and the network takes {dtype}.")
    fits = array.ndim == len(shape) and array.shape[1:] == shape[1:]
    if (
        not fits
        or (shape and (array.shape[0] % shape[0] or not array.shape[0]))
        or (alone and array.shape != shape)
    ):
        others = f" alone: {alone}." if alone else ", or several of these in a row."
        raise UsageError(f"Input {name!r} has shape {array.shape}, and the network takes {shape}{others}")
    return array.shape[0] // shape[0] if shape else 1


def flatten(value: Any) -> list[np.ndarray]:
    """Tensors in nested tuples, as a network returns them -> numpy arrays over the same memory, in order."""
    if hasattr(value, "numpy"):
        return [np.from_dlpack(value)]
    return [array for item in value for array in flatten(item)]


def load_vm(library: Path) -> Any:
    """The Relax virtual machine over a library on this machine's CPU. Raises BibenchError."""
    return _start(_kept(Path(library).read_bytes(), library), str(library))


def _start(library: Library, name: str) -> Any:
    import tvm
    from tvm import relax

    try:
        return relax.VirtualMachine(library.module(), tvm.cpu())
    except Exception as error:  # TVM and the dynamic linker raise what they like
        raise BibenchError(f"{name} cannot be loaded: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load(folder: str | os.PathLike[str], *, threads: int | None = None) -> Artifact:
    """Read an artifact. Raises BibenchError where the folder is not a whole artifact of this version.

    What is in the folder later does not matter: the library that is checked here is kept, and runs.
    threads: see `threads.use_threads`; left out, and with no TVM_NUM_THREADS in the environment, the first
    runs try one thread and one for each fast core, and those that follow take what was faster.
    """
    folder = as_path(folder, "The folder of an artifact")
    if threads is not None:
        use_threads(threads)
    manifest, content = _read(folder)
    return artifact_of(folder, manifest, content)


def artifact_of(folder: Path, manifest: Manifest, content: bytes) -> Artifact:
    """What `load` returns, of what was read from the folder or written there. content: of the library, empty
    where there is only one for C."""
    return Artifact(folder, manifest, _kept(content, folder))


def _kept(content: bytes, place: Path) -> Library:
    from rpc.library import Library

    try:
        return Library(content)
    except OSError as error:
        raise BibenchError(
            f"There is no room to load the {len(content):,} bytes of {place}: {error.strerror or error}."
        ) from error


def _read(folder: Path) -> tuple[Manifest, bytes]:
    """The manifest and the library that it names."""
    import tvm

    for _ in range(_ATTEMPTS):
        manifest = read(folder)
        built = manifest.versions["tvm"]
        if built != tvm.__version__:
            raise BibenchError(
                f"{folder} was compiled with TVM {built}, and TVM {tvm.__version__} is installed here. "
                "Compile it again, or install that version."
            )
        expected = manifest.files.get(MODEL)
        if expected is None:  # a library for C alone
            return manifest, b""
        library = folder / stored_name(MODEL, expected)
        try:
            content = library.read_bytes()
        except FileNotFoundError:
            continue  # a compilation has put another artifact there meanwhile
        except OSError as error:
            raise BibenchError(f"{library} cannot be read: {error.strerror or error}.") from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise BibenchError(
                f"{library} is not the file that the manifest describes: it was damaged or exchanged."
            )
        return manifest, content
    raise BibenchError(f"{folder} has no {library.name}: the artifact is not whole. Compile it again.")
