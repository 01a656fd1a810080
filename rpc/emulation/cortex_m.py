"""A microcontroller that one does not have: runs a network as a library for C on an emulated Cortex-M board.

There is no operating system: native/run_bare.c reads and writes files by semihosting.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rpc.emulation import qemu
from rpc.emulation.c_network import CNetwork
from rpc.emulation.qemu import EmulationFailed
from rpc.missing import EmulationUnavailable, sentence_of

DEBIAN_PACKAGE = "qemu-system-arm"
# What the compiler's own library has, native/run_bare.c and native/libm.c: a whole libm there is not for such
# a board.
_AT_HAND = re.compile(
    r"mem(cpy|set|move)|__aeabi_\w+|(exp2?|log(2|10)?|sin|cos|tan|floor|ceil|trunc|round|fmod|fma|sqrt|fabs"
    r"|fmin|fmax)f?|(pow|atan|asin|acos)f"
)


@dataclass(frozen=True)
class Machine:
    """A board of Arm's that QEMU has. zig_cpu: with its floating-point unit, else floats reach libm in
    the wrong registers; code, data: where its memories begin, and how many bytes each has."""

    name: str
    zig_cpu: str
    code: int
    data: int
    code_bytes: int
    data_bytes: int


MACHINES = {
    "cortex-m4": Machine("mps2-an386", "cortex_m4+vfp4d16sp", 0x00000000, 0x20000000, 4 << 20, 4 << 20),
    "cortex-m7": Machine("mps2-an500", "cortex_m7+fp_armv8d16sp", 0x00000000, 0x20000000, 4 << 20, 4 << 20),
    "cortex-m33": Machine("mps2-an505", "cortex_m33+fp_armv8d16sp", 0x10000000, 0x38000000, 4 << 20, 4 << 20),
    "cortex-m55": Machine(
        "mps3-an547", "cortex_m55+fp_armv8d16sp", 0x00000000, 0x31000000, 512 << 10, 2 << 20
    ),
}


@dataclass(frozen=True)
class BareRun:
    """stack_bytes: the most that a run took; instructions: of one run, None where they were not counted."""

    outputs: list[list[np.ndarray]]
    stack_bytes: int
    instructions: int | None


def missing() -> str | None:
    """What this machine lacks, with the line to type; None when it lacks nothing."""
    try:
        _emulator()
    except EmulationUnavailable as problem:
        return str(problem)
    return None


def lacking(symbols: Sequence[str]) -> list[str]:
    """Those of the functions that a network takes which there are not for such a board."""
    return [symbol for symbol in symbols if not _AT_HAND.fullmatch(symbol)]


def run_network(
    network: CNetwork,
    samples: Sequence[Sequence[np.ndarray]],
    *,
    cpu: str,
    timeout_s: float,
    count: bool = False,
) -> BareRun:
    """Runs a network on each sample. cpu: a key of MACHINES; count: the executed instructions, too.

    Raises EmulationUnavailable, or EmulationFailed with what went wrong.
    """
    machine = MACHINES[cpu]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = [network.archive]
        program = build(machine, _call(network, samples[0]), sources, folder)
        (folder / "inputs").write_bytes(b"".join(a.tobytes() for sample in samples for a in sample))
        command = start(program, cpu, folder, timeout_s=timeout_s)
        content = (folder / "outputs").read_bytes()
        depth = int(np.fromfile(folder / "depth", "<u4", 1)[0])
        size = sum(output.nbytes for output in network.outputs)
        if len(content) != size * len(samples):
            raise EmulationFailed(f"On {cpu}, {len(content) // size} of {len(samples)} samples were done.")
        outputs = [_split(content[i * size : (i + 1) * size], network.outputs) for i in range(len(samples))]
        instructions = _count(command, samples[0], folder, timeout_s) if count else None
        return BareRun(outputs, depth, instructions)


def _emulator() -> str:
    try:
        return qemu.emulator("qemu-system-arm")
    except EmulationUnavailable:
        line = qemu.apt_line(DEBIAN_PACKAGE)
        raise EmulationUnavailable(f"qemu-system-arm is not installed. Type: {line}") from None


def start(program: Path, cpu: str, folder: Path, *, timeout_s: float) -> list[str]:
    """Runs a program that was built for this processor in a folder with its inputs. Gives the command.

    Raises EmulationUnavailable, or EmulationFailed with what went wrong.
    """
    quiet = ["-nographic", "-monitor", "none", "-serial", "none"]
    files = ["-semihosting-config", "enable=on,target=native"]
    command = [_emulator(), "-M", MACHINES[cpu].name, *quiet, *files, "-kernel", str(program)]
    _run(command, folder, timeout_s, f"On {cpu}, ")
    return command


def _call(network: CNetwork, sample: Sequence[np.ndarray]) -> str:
    """call.h, see run_bare.c."""
    tensors = {f"input{i}": array for i, array in enumerate(sample)}
    tensors |= {f"output{i}": array for i, array in enumerate(network.outputs)}
    name, macro = network.name, network.name.upper()
    memory = "".join(
        f"static _Alignas(8) unsigned char {tensor}[{array.nbytes}];\n" for tensor, array in tensors.items()
    )
    places = ", ".join(f"(void*){tensor}" for tensor in tensors)
    groups = "".join(
        f"#define {kind.upper()}S(F) {' '.join(f'F({each})' for each in tensors if each.startswith(kind))}\n"
        for kind in ("input", "output")
    )
    return f"""#include "{network.header.resolve()}"
{memory}static _Alignas({macro}_ALIGNMENT) unsigned char workspace[{macro}_WORKSPACE_BYTES];
{groups}#define CALL() {name}_run({places}, workspace)
"""


def build(
    machine: Machine, call: str, sources: Sequence[Path], folder: Path, headers: Sequence[Path] = ()
) -> Path:
    """native/run_bare.c with what it is to call: the text of call.h, and sources or libraries; headers: the
    folders of theirs. Raises EmulationUnavailable."""
    if importlib.util.find_spec("ziglang") is None:
        raise EmulationUnavailable(str(sentence_of("ziglang")))
    (folder / "call.h").write_text(f"{call}#define STACK_TOP {machine.data + machine.data_bytes:#x}\n")
    (folder / "bare.ld").write_text(f"""MEMORY {{
  code (rx) : ORIGIN = {machine.code:#x}, LENGTH = {machine.code_bytes:#x}
  data (rwx) : ORIGIN = {machine.data:#x}, LENGTH = {machine.data_bytes:#x}
}}
SECTIONS {{
  .text : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) }} > code
  .ARM.exidx : {{ *(.ARM.exidx*) }} > code
  .bss (NOLOAD) : {{ *(.data*) *(.bss*) }} > data
}}
""")
    target = ["-target", "thumb-freestanding-eabihf", f"-mcpu={machine.zig_cpu}"]
    options = [
        "-ffreestanding",
        "-nostartfiles",
        "-fno-sanitize=all",
        "-ffunction-sections",
        *(f"-I{header}" for header in (folder, *headers)),
    ]
    script = [f"-Wl,-T,{folder / 'bare.ld'}", "-Wl,-e,reset", "-Wl,--gc-sections"]
    compiler = [sys.executable, "-m", "ziglang", "cc", *target, *options]
    return qemu.build(
        compiler, [qemu.NATIVE / "run_bare.c", qemu.NATIVE / "libm.c", *sources], folder, script
    )


def _run(command: Sequence[str], folder: Path, timeout_s: float, where: str) -> None:
    try:
        qemu.run(command, {}, timeout_s, folder)
    except EmulationFailed as problem:
        raise EmulationFailed(f"{where}{problem}") from None


def _split(content: bytes, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    arrays, start = [], 0
    for output in outputs:
        part = content[start : start + output.nbytes]
        arrays.append(np.frombuffer(part, output.dtype).reshape(output.shape).copy())
        start += output.nbytes
    return arrays


def _count(command: Sequence[str], sample: Sequence[np.ndarray], folder: Path, timeout_s: float) -> int:
    """What a further run of the same sample executes; reading and writing are a few hundred of it."""
    plugin = qemu.plugin(command[0], qemu.NATIVE / "count_executed.c")
    counts = []
    for runs in (1, 2):
        (folder / "inputs").write_bytes(b"".join(array.tobytes() for array in sample) * runs)
        _run([*command, "-plugin", f"{plugin},page=executed"], folder, timeout_s, "")
        counts.append(int(np.fromfile(folder / "executed", "<u8", 1)[0]))
    return counts[1] - counts[0]
