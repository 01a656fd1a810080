"""Runs a network that is a library for C, by the C program native/run_standalone.c, here or under QEMU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rpc.emulation import qemu


@dataclass(frozen=True)
class CNetwork:
    """`lib<name>.a` and `<name>.h`, and arrays like its outputs."""

    archive: Path
    header: Path
    name: str
    outputs: Sequence[np.ndarray]


def run(
    network: CNetwork,
    samples: Sequence[Sequence[np.ndarray]],
    compiler: Sequence[str],
    emulator: Sequence[str],
    environment: Mapping[str, str],
    timeout_s: float,
    where: str = "",
) -> list[list[np.ndarray]]:
    """The outputs of each sample. All buffers of the network have their natural alignment and no more, and
    around them is memory that it must not touch.

    compiler: the command of a C compiler, as `qemu.compiler` gives it; emulator: what runs its programs, and
    may be empty; where: what a failure's sentence begins with. Raises EmulationUnavailable, or
    EmulationFailed with how many samples were done.
    """
    places = ", ".join(f"(tensors)[{i}]" for i in range(len(samples[0]) + len(network.outputs)))
    call = f"""#include "{network.header.resolve()}"
#define CALL(tensors, workspace) {network.name}_run({places}, workspace)
#define WORKSPACE_BYTES {network.name.upper()}_WORKSPACE_BYTES
#define OUTPUT_COUNT {len(network.outputs)}
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "call.h").write_text(call)
        flags = [*qemu.ffi_headers(), "-I", folder, "-lm"]
        sources = [qemu.NATIVE / "run_standalone.c", network.archive]
        program = qemu.build(compiler, sources, Path(folder), flags)
        given = [[*sample, *network.outputs] for sample in samples]
        return qemu.compute([*emulator, str(program)], given, Path(folder), environment, timeout_s, where)
