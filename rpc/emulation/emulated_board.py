"""A 64-bit Arm board that one does not have: a session of it is native/serve_session.c under QEMU.

Its clock counts executed instructions, one a nanosecond: exact, the same each time, and no time of any board.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm

from rpc import emulated, machine
from rpc.emulation import qemu


def prepare(cpu: str) -> tuple[dict[str, Any], Callable[[int], None]]:
    """What an emulated `cpu` (QEMU's name: cortex-a53, cortex-a72, max) says of itself, and what serves a
    client at a socket, with its files in the current folder.

    The first call downloads TVM for aarch64 (98 MB) and builds two small programs. Raises
    EmulationUnavailable with the line to type, or EmulationFailed where QEMU has no such processor.
    """
    emulator, sysroot, program = emulated.prepared("serve_session.c")
    plugin = qemu.plugin(emulator, qemu.NATIVE / "count_executed.c")
    command = [emulator, "-cpu", cpu, "-plugin", f"{plugin},page=executed", "-L", str(sysroot), str(program)]
    # These and no others, so that counts can be repeated. One thread, since a waiting one counts too.
    environment = {"TVM_NUM_THREADS": "1", "LD_LIBRARY_PATH": f"{program.parent}:{sysroot / 'lib'}"}

    with tempfile.TemporaryDirectory() as folder:
        words = qemu.run(command, environment, 60, Path(folder)).decode().split()
    description = {
        "emulated": True,
        "cpu": cpu,
        "machine": "aarch64",
        "cores": 1,
        "features": sorted(machine.LLVM_FEATURES[word] for word in words),
        "governor": None,
        "memory_bytes": machine.memory_bytes(),
        "tvm": tvm.__version__,
    }

    def serve(connection: int) -> None:
        os.execve(emulator, [*command, str(connection), "executed"], environment)

    return description, serve
