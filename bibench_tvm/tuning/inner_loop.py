"""The loop in which a kernel spends its time, found in its code, and its cycles by LLVM's models."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bibench_tvm.cli.errors import BibenchError
from rpc.emulation.qemu import apt_line
from schedules.records.kernel_task import Work
from schedules.targets.aarch64_neon import MODELLED_AS

DEBIAN_PACKAGES = "llvm-19"
_VERSIONS = range(23, 18, -1)  # older ones lack the model of neoverse-n1
_POPCOUNTS = {0x4E205800: 128, 0x0E205800: 64}  # cnt of 16 and of 8 bytes -> bits
_ITERATIONS = 200


class ModelUnavailable(BibenchError):
    """There is no llvm-mca here; the message is the line to type."""


@dataclass(frozen=True)
class Executed:
    """One instruction, its place and how often a call of the kernel executes it."""

    address: int
    code: int
    count: int

    @property
    def products(self) -> int:
        """Binary products that one execution counts, if it is a `cnt`."""
        return _POPCOUNTS.get(self.code & 0xFFFFFC00, 0)


def read_counts(file: Path) -> dict[tuple[int, int], int]:
    """What the plugin wrote: (address, code) -> count."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return {(int(address, 16), int(code, 16)): int(count) for address, code, count in lines}


def popcounts(instruction: Executed) -> int:
    return instruction.products


def multiplications(instruction: Executed) -> int:
    """Products of float32 that one execution adds up, if it is an `fmla` of four lanes."""
    code = instruction.code
    return 4 if code & 0xFFE0FC00 == 0x4E20CC00 or code & 0xFFC0F400 == 0x4F801000 else 0


def instructions(instruction: Executed) -> int:
    """One: of two loops that nothing else is known of, the longer one does more."""
    return 1


COUNTED: dict[Work, Callable[[Executed], int]] = {
    "popcounts": popcounts,
    "multiplications": multiplications,
    "instructions": instructions,
}


def inner_loop(executed: Sequence[Executed], work: Callable[[Executed], int] = popcounts) -> list[Executed]:
    """Of the loops without a loop inside, the one that does most of the products; [] if nothing loops.

    executed: by address. work: products of one execution.
    """
    spans = sorted((to, i.address) for i in executed if (to := _jumps_back_to(i)) is not None)
    innermost = [
        (start, end)
        for start, end in spans
        if not any((s, e) != (start, end) and start <= s and e <= end for s, e in spans)
    ]
    bodies = [[i for i in executed if start <= i.address <= end] for start, end in innermost]
    return max(bodies, key=lambda body: sum(work(i) * i.count for i in body), default=[])


def _jumps_back_to(instruction: Executed) -> int | None:
    """Where a branch backwards goes."""
    code = instruction.code
    if code & 0xFF000010 == 0x54000000 or code & 0x7E000000 == 0x34000000:  # b.cond, cbz, cbnz
        words = _signed(code >> 5, 19)
    elif code & 0x7E000000 == 0x36000000:  # tbz, tbnz
        words = _signed(code >> 5, 14)
    elif code & 0xFC000000 == 0x14000000:  # b
        words = _signed(code, 26)
    else:
        return None
    return instruction.address + 4 * words if words <= 0 else None


def code_of(compiled: bytes) -> list[Executed]:
    """The instructions of a 64-bit ELF object for aarch64, each as if it was executed once."""
    (table,) = struct.unpack_from("<Q", compiled, 40)
    size, count = struct.unpack_from("<HH", compiled, 58)
    found: list[Executed] = []
    start = 0
    for i in range(count):
        _, kind, flags, _, offset, length = struct.unpack_from("<IIQQQQ", compiled, table + i * size)
        if kind == 1 and flags & 4:  # code
            words = struct.unpack_from(f"<{length // 4}I", compiled, offset)
            found += [Executed(start + 4 * at, code, 1) for at, code in enumerate(words)]
            start += length + 4096  # so that no branch reaches from one section into another
    return found


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def cycles(body: Sequence[Executed], cpu: str) -> float:
    """Cycles of one run through the loop on this core, as llvm-mca models it. Raises ModelUnavailable."""
    assembly = disassemble(body, cpu)
    options = ["-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={_ITERATIONS}", "-json"]
    report = json.loads(_llvm("llvm-mca", options, assembly))
    return report["CodeRegions"][0]["SummaryView"]["TotalCycles"] / _ITERATIONS


def modelled_cpu(cpu: str) -> str:
    """The core whose model stands for this one."""
    return MODELLED_AS.get(cpu, cpu)


def cycles_per_instruction(compiled: bytes, cpu: str, work: Callable[[Executed], int]) -> float:
    """In the inner loop of an object, found without running it; 1 where nothing loops.

    Raises ModelUnavailable.
    """
    body = inner_loop(code_of(compiled), work)
    return cycles(body, modelled_cpu(cpu)) / len(body) if body else 1.0


def missing() -> str:
    """What to type where there is no llvm-mca, or nothing."""
    try:
        _llvm("llvm-mca", ["--version"], "")
    except ModelUnavailable as error:
        return str(error)
    return ""


def disassemble(body: Sequence[Executed], cpu: str) -> str:
    """Assembly, a line for each instruction."""
    code = "\n".join(" ".join(f"0x{byte:02x}" for byte in i.code.to_bytes(4, "little")) for i in body)
    return _llvm("llvm-mc", ["--disassemble", "--triple=aarch64", f"--mcpu={cpu}"], code)


def _llvm(tool: str, options: Sequence[str], text: str) -> str:
    paths = (shutil.which(f"{tool}-{version}") for version in _VERSIONS)
    path = next((path for path in paths if path), None)
    if path is None:
        line = apt_line(DEBIAN_PACKAGES)
        raise ModelUnavailable(f"{tool}, version 19 or newer, is not installed. Type: {line}")
    result = subprocess.run([path, *options], input=text, capture_output=True, text=True)
    if result.returncode != 0:
        raise BibenchError(f"{tool} failed: {result.stderr.strip().splitlines()[0]}")
    return result.stdout
