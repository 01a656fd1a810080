"""A 32-bit Arm board that one does not have: calls single compiled kernels under QEMU, on this machine.

TVM has no runtime for 32-bit Arm, so no network can be run here. A kernel needs none: it is linked with the C
program native/call_kernel.c, which has the few functions of the runtime that kernels call.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpc.emulation import qemu, tensor_file
from rpc.emulation.qemu import EmulationFailed
from rpc.missing import EmulationUnavailable

__all__ = ["EmulationFailed", "EmulationUnavailable", "run_kernel"]


def run_kernel(
    objects: list[Path],
    symbol: str,
    arrays: Sequence[np.ndarray],
    *,
    cpu: str = "cortex-a7",
    timeout_s: float,
) -> list[np.ndarray]:
    """Calls the PrimFunc `symbol` of the ELF `objects` once, and gives all its arrays as they are afterwards.

    The objects are compiled for a triple such as `armv7a-linux-gnueabihf` with `mfloat-abi: hard`. Without
    it, TVM passes floats to functions such as expf in the wrong registers, and nothing complains. `cpu` is
    QEMU's name. Raises EmulationUnavailable, or EmulationFailed with what went wrong.
    """
    emulator = qemu.emulator("qemu-arm")
    sysroot = qemu.sysroot("arm-linux-gnueabihf", ["ld-linux-armhf.so.3", "libc.so.6", "libm.so.6"])
    # Against glibc and not static musl, which spares a package of 1 MB but takes zig 50 s to build.
    compiler = qemu.compiler("arm-linux-gnueabihf-gcc", ["arm-linux-gnueabihf.2.28", "-mcpu=cortex_a7"])
    flags = [*qemu.ffi_headers(), f"-DKERNEL=__tvm_ffi_{symbol}", "-lm"]
    with tempfile.TemporaryDirectory() as folder:
        caller = qemu.build(compiler, [qemu.NATIVE / "call_kernel.c", *objects], Path(folder), flags)
        sent, received = Path(folder, "inputs"), Path(folder, "outputs")
        tensor_file.write(sent, [arrays])
        command = [emulator, "-cpu", cpu, "-L", str(sysroot), str(caller), "1", str(sent), str(received)]
        qemu.run(command, {"LD_LIBRARY_PATH": str(sysroot / "lib")}, timeout_s)
        return qemu.received(received, 1)[0]
