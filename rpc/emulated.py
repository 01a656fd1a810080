"""A 64-bit Arm board that one does not have: runs a compiled network under QEMU, on this machine.

The C program native/run_model.c calls the network through TVM's own aarch64 libraries, from the wheels of the
version that is installed here. It computes exactly what the board computes; its time means nothing.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpc.emulation import qemu
from rpc.emulation.qemu import EmulationFailed
from rpc.missing import EmulationUnavailable

__all__ = ["EmulationFailed", "EmulationUnavailable", "missing", "run"]

# libtvm_runtime_extra has sorting and random numbers, which detection networks call.
_LIBRARIES = {
    "apache-tvm": ["tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_extra.so"],
    "apache-tvm-ffi": ["tvm_ffi/lib/libtvm_ffi.so"],
}
_SYSTEM_LIBRARIES = ["ld-linux-aarch64.so.1", "libc.so.6", "libstdc++.so.6", "libgcc_s.so.1"]


def missing() -> str | None:
    """What this machine lacks to run an aarch64 artifact, with the line to type; None when it lacks nothing.

    The first call prepares what later ones find in the cache: it downloads TVM for aarch64 (98 MB) and builds
    the runner, a few seconds each.
    """
    try:
        prepared("run_model.c")
    except EmulationUnavailable as problem:
        return str(problem)
    return None


def run(
    model_so: Path,
    inputs: Sequence[Sequence[np.ndarray]],
    *,
    cpu: str = "cortex-a72",
    threads: int = 1,
    timeout_s: float,
) -> list[list[np.ndarray]]:
    """Runs `main` of a Relax executable on each sample, on an emulated `cpu` (QEMU's name: cortex-a53, max).

    `inputs[sample][input]` gives `outputs[sample][output]`, where tuples are flattened in order. `timeout_s`
    is for all samples together. Raises EmulationUnavailable, or EmulationFailed with what went wrong and how
    many samples were done.
    """
    emulator, sysroot, runner = prepared("run_model.c")
    with tempfile.TemporaryDirectory() as folder:
        command = [emulator, "-cpu", cpu, "-L", str(sysroot), str(runner), str(Path(model_so).resolve())]
        libraries = f"{runner.parent}:{sysroot / 'lib'}"
        environment = {"TVM_NUM_THREADS": str(threads), "LD_LIBRARY_PATH": libraries}
        return qemu.compute(command, inputs, Path(folder), environment, timeout_s, f"On {cpu}, ")


def prepared(source: str) -> tuple[str, Path, Path]:
    """The emulator, the folder of aarch64 system libraries, and the program of this source in native/, which
    is linked with TVM's libraries and lies beside them. Raises EmulationUnavailable.
    """
    emulator = qemu.emulator("qemu-aarch64")
    sysroot = qemu.sysroot("aarch64-linux-gnu", _SYSTEM_LIBRARIES)
    # 2.28 is the glibc of the manylinux wheels.
    compiler = qemu.compiler("aarch64-linux-gnu-gcc", ["aarch64-linux-gnu.2.28"])
    with qemu.locked("emulated-aarch64"):
        libraries = _libraries()
        # The runtime registers itself as it is loaded and nothing names it, hence --no-as-needed. That it
        # finds libstdc++ is the sysroot's business and not the linker's.
        flags = [*qemu.ffi_headers(), "-L", str(libraries), "-Wl,--no-as-needed,--allow-shlib-undefined"]
        flags += ["-ltvm_runtime", "-ltvm_runtime_extra", "-ltvm_ffi"]
        return emulator, sysroot, qemu.build(compiler, [qemu.NATIVE / source], libraries, flags)


def _libraries() -> Path:
    """The folder of TVM's aarch64 libraries, of the version installed here; downloads them the first time."""
    versions = {package: importlib.metadata.version(package) for package in _LIBRARIES}
    folder = qemu.cache_folder() / f"emulated-aarch64-{'-'.join(versions.values())}"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=qemu.cache_folder()) as scratch:
        unpacked = Path(scratch, "libraries")
        unpacked.mkdir()
        # The Python of the wheels does not matter, since only their libraries are used.
        platform = ["--platform", "manylinux_2_28_aarch64", "--python-version", "3.11"]
        options = ["--no-deps", "--only-binary", ":all:", *platform]
        packages = [f"{package}=={version}" for package, version in versions.items()]
        pip = [sys.executable, "-m", "pip", "download", *options, *packages]
        result = subprocess.run([*pip, "-q", "-d", scratch], capture_output=True, text=True)
        if result.returncode != 0:
            words = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise EmulationUnavailable(f"TVM for aarch64 cannot be downloaded: {words} Try: {' '.join(pip)}")
        members = [name for names in _LIBRARIES.values() for name in names]
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in set(members) & set(archive.namelist()):
                    (unpacked / Path(name).name).write_bytes(archive.read(name))
        # Renamed when it is whole, so that a folder of this name can be trusted.
        unpacked.rename(folder)
    return folder
