"""QEMU's user mode and the C programs that run under it: what 64- and 32-bit emulation share."""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rpc.emulation import tensor_file
from rpc.missing import EmulationUnavailable, sentence_of

NATIVE = Path(__file__).parent / "native"
DEBIAN_PACKAGES = "qemu-user libstdc++6-arm64-cross libc6-armhf-cross"


class EmulationFailed(RuntimeError):
    """The Arm program crashed, hung, reported an error or wrote garbage: the message says which."""


def apt_line(packages: str) -> str:
    """What to type to install these."""
    return f"{'sudo ' if os.geteuid() else ''}apt-get install -y --no-install-recommends {packages}"


def cache_folder() -> Path:
    """Where downloaded libraries and built programs are kept: $BIBENCH_CACHE, or ~/.cache/bibench_tvm."""
    return Path(os.environ.get("BIBENCH_CACHE") or Path.home() / ".cache" / "bibench_tvm")


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Lets one process at a time fill the cache; the lock ends with the process that holds it.

    Raises EmulationUnavailable where the cache cannot be written.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.lock").touch()
    except OSError as problem:
        raise EmulationUnavailable(
            f"{folder} cannot be written ({problem.strerror}). Set BIBENCH_CACHE to a folder that can be."
        ) from None
    with open(folder / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def emulator(program: str) -> str:
    """The path of `qemu-aarch64` or `qemu-arm`. Raises EmulationUnavailable."""
    path = shutil.which(program)
    if path is None:
        raise EmulationUnavailable(f"{program} is not installed. Type: {apt_line(DEBIAN_PACKAGES)}")
    return path


def sysroot(triple: str, libraries: Sequence[str]) -> Path:
    """The folder of Arm system `libraries` for `qemu -L`: Debian's /usr/TRIPLE, or $BIBENCH_SYSROOTS/TRIPLE.

    Raises EmulationUnavailable where one is absent.
    """
    folder = Path(os.environ.get("BIBENCH_SYSROOTS", "/usr")) / triple
    for name in libraries:
        if not (folder / "lib" / name).exists():
            raise EmulationUnavailable(
                f"{folder / 'lib' / name} is not installed. Type: {apt_line(DEBIAN_PACKAGES)}"
            )
    return folder


def compiler(gcc: str, zig_target: Sequence[str]) -> list[str]:
    """The command of a C cross compiler: Debian's `gcc` where it is installed, else zig's from PyPI.

    Raises EmulationUnavailable where there is neither.
    """
    if path := shutil.which(gcc):
        return [path]
    if importlib.util.find_spec("ziglang") is None:
        raise EmulationUnavailable(sentence_of("ziglang"))
    return [sys.executable, "-m", "ziglang", "cc", "-target", *zig_target]


def ffi_headers() -> list[str]:
    """The compiler options that find tvm/ffi/c_api.h, without importing TVM."""
    spec = importlib.util.find_spec("tvm_ffi")
    if spec is None or not spec.submodule_search_locations:
        raise EmulationUnavailable(sentence_of("tvm_ffi"))
    return ["-I", str(Path(spec.submodule_search_locations[0]) / "include")]


def build(command: Sequence[str], sources: Sequence[Path], folder: Path, flags: Sequence[str] = ()) -> Path:
    """Compiles and links one program into `folder`, or returns the one built from the same files before.

    `flags` follow the sources, as libraries must. Raises EmulationUnavailable with the compiler's own words.
    """
    files = [str(file.resolve()) for file in sources]
    line = [*command, "-std=gnu11", "-O2", "-Wall", "-Wextra", *files, *flags]
    digest = hashlib.sha256(repr(line).encode())
    for file in [*sorted(NATIVE.glob("*.[ch]")), *sources]:
        digest.update(file.read_bytes())
    program = folder / f"{sources[0].stem}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # Built aside and renamed, so that another process sees the whole program or none.
        built = Path(scratch) / program.name
        result = subprocess.run([*line, "-o", str(built)], cwd=scratch, capture_output=True, text=True)
        if result.returncode != 0:
            raise EmulationUnavailable(f"{sources[0].name} did not compile for Arm: {result.stderr.strip()}")
        built.replace(program)
    return program


def plugin(emulator: str, source: Path) -> Path:
    """A plugin of QEMU, built for this machine and this QEMU. Raises EmulationUnavailable."""
    words = subprocess.run([emulator, "--version"], capture_output=True, text=True).stdout
    major = int(match[1]) if (match := re.search(r"version (\d+)", words)) else 0
    flags = ["-shared", "-fPIC", "-I", str(NATIVE), f"-DPLUGIN_VERSION={2 if major >= 9 else 1}"]
    with locked("plugins"):
        return build(_host_compiler(), [source], cache_folder() / "plugins", flags)


def _host_compiler() -> list[str]:
    if path := shutil.which("gcc") or shutil.which("cc"):
        return [path]
    if importlib.util.find_spec("ziglang") is None:
        raise EmulationUnavailable(sentence_of("ziglang"))
    return [sys.executable, "-m", "ziglang", "cc"]


def run(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float, folder: Path | None = None
) -> bytes:
    """Runs an Arm program under QEMU, in `environment` and nothing else, so that runs can be repeated.

    `folder` is its current one. Gives its standard output.

    Raises EmulationFailed with a sentence when it crashes, hangs for `timeout_s` seconds or reports an error.
    """
    try:
        result = subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        raise EmulationFailed(f"The emulated program did not end within {timeout_s:g} seconds.") from None
    if result.returncode == 0:
        return result.stdout
    words = " ".join(result.stderr.decode(errors="replace").split())
    if result.returncode > 0:
        raise EmulationFailed(words or f"The emulated program ended with status {result.returncode}.")
    raise EmulationFailed(f"The emulated program {death_of(-result.returncode)} {words}".rstrip())


def death_of(number: int) -> str:
    """What a process did that died of a signal."""
    crash = signal.Signals(number)
    meaning = {
        signal.SIGILL: "it used an instruction that this processor does not have",
        signal.SIGSEGV: "it reached for memory that is not its own",
        signal.SIGABRT: "it gave up",
        signal.SIGKILL: "it was killed, perhaps for want of memory",
    }.get(crash, signal.strsignal(crash) or "it was stopped")
    return f"died of {crash.name}: {meaning}."


def compute(
    command: Sequence[str],
    samples: Sequence[Sequence[np.ndarray]],
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    where: str = "",
) -> list[list[np.ndarray]]:
    """What a program makes of each sample, which it is given as a file of tensors and answers with another.

    The files are in `folder`. Raises EmulationFailed with how many samples were done, after `where`.
    """
    sent, path = folder / "inputs", folder / "outputs"
    tensor_file.write(sent, samples)
    try:
        run([*command, str(sent), str(path)], environment, timeout_s)
    except EmulationFailed as problem:
        done = 0
        with contextlib.suppress(OSError, ValueError):
            done = len(tensor_file.read(path)[1])
        raise EmulationFailed(f"{where}after {done} of {len(samples)} samples: {problem}") from None
    return received(path, len(samples))


def received(path: Path, expected: int) -> list[list[np.ndarray]]:
    """The lists of tensors that an emulated program wrote. Raises EmulationFailed unless all are there."""
    try:
        promised, lists = tensor_file.read(path)
    except (OSError, ValueError) as problem:
        raise EmulationFailed(f"The output of the emulated program {problem}.") from None
    if not promised == len(lists) == expected:
        raise EmulationFailed(f"The emulated program gave {len(lists)} of {expected} results and stopped.")
    return lists
