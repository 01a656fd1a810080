"""runner.c and a network in C, or kernels -> one static executable for the Linux or Android of a device."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rpc.built_kernel import BuiltKernel
from rpc.emulation import qemu
from rpc.missing import EmulationUnavailable, sentence_of

# musl, since what is linked statically with it needs nothing of the device but the kernel; no NDK either.
TRIPLES = {
    "aarch64": "aarch64-linux-musl",
    "armv7l": "arm-linux-musleabihf",
    "x86_64": "x86_64-linux-musl",
}
_SOURCE = Path(__file__).parent / "runner.c"


@dataclass(frozen=True)
class NetworkInC:
    """The content of lib<name>.a, <name>.h, <name>_threads.h and <name>_threads.c, by their names, and arrays
    like the network's outputs."""

    name: str
    files: Mapping[str, bytes]
    outputs: Sequence[np.ndarray]


def build_describer(machine: str) -> Path:
    """The program without a network, which lives in the cache. machine: a key of TRIPLES. Raises
    EmulationUnavailable."""
    folder = qemu.cache_folder() / "devices" / machine
    with qemu.locked("devices"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "call.h").write_text("// without a network\n")
        return _build(machine, [_SOURCE], folder)


def build_runner(machine: str, network: NetworkInC, inputs: int, folder: Path) -> Path:
    """The program with a network of so many inputs. Its parts lie in `folder` too.

    Raises EmulationUnavailable.
    """
    name, macro = network.name, network.name.upper()
    for file, content in network.files.items():
        (folder / file).write_bytes(content)
    places = ", ".join(f"(tensors)[{i}]" for i in range(inputs + len(network.outputs)))
    (folder / "call.h").write_text(f"""#include "{name}.h"
#include "{name}_threads.h"
#define OUTPUT_COUNT {len(network.outputs)}
#define WORKSPACE_BYTES_OF(threads) {macro}_WORKSPACE_BYTES_OF((uint64_t)(threads))
#define START(threads) {name}_threads_start(threads)
#define STOP(pool) {name}_threads_stop(pool)
#define CALL(tensors, workspace, pool) \\
  ((pool) ? {name}_run_threads({places}, workspace, pool) : {name}_run({places}, workspace))
""")
    sources = [_SOURCE, folder / f"{name}_threads.c", folder / f"lib{name}.a"]
    return _build(machine, sources, folder)


def build_kernels(machine: str, kernels: Sequence[BuiltKernel], outputs: int, folder: Path) -> Path:
    """The program with some kernels, each with so many outputs. Raises EmulationUnavailable."""
    names = " ".join(f"K({kernel.file.stem})" for kernel in kernels)
    (folder / "call.h").write_text(f"#define OUTPUT_COUNT {outputs}\n#define KERNELS(K) {names}\n")
    return _build(machine, [_SOURCE, *(kernel.file for kernel in kernels)], folder)


def _build(machine: str, sources: Sequence[Path], folder: Path) -> Path:
    if importlib.util.find_spec("ziglang") is None:
        raise EmulationUnavailable(str(sentence_of("ziglang")))
    options = ["-target", TRIPLES[machine], "-static", "-s", "-pthread"]
    if machine == "armv7l":
        options.append("-mcpu=generic+v7a+vfp3d16")
    compiler = [sys.executable, "-m", "ziglang", "cc", *options]
    flags = [*qemu.ffi_headers(), "-I", str(qemu.NATIVE), "-I", str(folder), "-lm"]
    return qemu.build(compiler, sources, folder, flags)
