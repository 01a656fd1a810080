"""Counts the instructions that one call of a kernel executes, on an emulated 64-bit Arm processor.

A kernel is linked with rpc/emulation/native/call_kernel.c and run under QEMU with a plugin of ours,
native/count.c, with two calls and with three: the difference is one call, in the steady state.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.kernels import Kernel, built
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.tuning.inner_loop import Executed, read_counts
from rpc.emulation import qemu, tensor_file

NATIVE = Path(__file__).parent / "native"
TIMEOUT_S = 300.0


def executed_instructions(kernel: Kernel, target: CompileTarget) -> list[Executed]:
    """By address, those of one call; checked to be the same in two runs, and the kernel's output to be right.

    Raises EmulationUnavailable with the line to type, EmulationFailed, BibenchError.
    """
    emulator = qemu.emulator("qemu-aarch64")
    plugin = qemu.plugin(emulator, NATIVE / "count.c")
    sysroot = qemu.sysroot("aarch64-linux-gnu", ["ld-linux-aarch64.so.1", "libc.so.6"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = _program(kernel, target, folder)
        tensor_file.write(folder / "inputs", [kernel.arguments])

        def counts(calls: int) -> dict[tuple[int, int], int]:
            command = [emulator, "-cpu", target.emulated_cpu, "-plugin", f"{plugin},out={folder / 'counts'}"]
            command += ["-L", str(sysroot), str(program), str(calls)]
            command += [str(folder / "inputs"), str(folder / "outputs")]
            qemu.run(command, {"LD_LIBRARY_PATH": str(sysroot / "lib")}, TIMEOUT_S)
            return read_counts(folder / "counts")

        two, three, again = counts(2), counts(3), counts(3)
        kernel.check(qemu.received(folder / "outputs", 1)[0])
    if three != again:
        raise BibenchError(f"Two runs of {kernel.title} executed different instructions.")
    # Below zero where malloc took another path in the third call than in the second.
    difference = {at: three.get(at, 0) - two.get(at, 0) for at in sorted(two.keys() | three.keys())}
    return [Executed(address, code, count) for (address, code), count in difference.items() if count]


def _program(kernel: Kernel, target: CompileTarget, folder: Path) -> Path:
    compiled = folder / "kernel.o"
    built([kernel], target).mod.write_to_file(str(compiled), "o")
    compiler = qemu.compiler("aarch64-linux-gnu-gcc", ["aarch64-linux-gnu.2.28"])
    flags = [*qemu.ffi_headers(), f"-DKERNEL=__tvm_ffi_{kernel.symbol}", "-no-pie", "-lm"]
    return qemu.build(compiler, [qemu.NATIVE / "call_kernel.c", compiled], folder, flags)
