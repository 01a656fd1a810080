"""The program that went to a device, run here, natively or under QEMU: what it should compute there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpc.emulation import qemu
from rpc.machine_name import this_machine

_LIMIT_S = 600
_EMULATORS = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm"}


def run_here(
    program: bytes, machine: str, samples: Sequence[Sequence[np.ndarray]]
) -> tuple[str, list[list[np.ndarray]]]:
    """(by what it was run, the outputs of each sample). A sample has the inputs and arrays like the outputs.

    Raises EmulationUnavailable, EmulationFailed.
    """
    command, by = [], "this machine"
    if machine != this_machine():
        command = [qemu.emulator(_EMULATORS[machine]), "-cpu", "max"]
        by = f"{_EMULATORS[machine]} -cpu max"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "program")
        file.write_bytes(program)
        file.chmod(0o700)
        line = [*command, str(file), "run", str(_LIMIT_S), "1"]
        return by, qemu.compute(line, samples, Path(folder), {}, _LIMIT_S, f"By {by}, ")
