"""The loop in which a kernel spends its time, found in what was executed, and its cycles by LLVM's models."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bibench_tvm.errors import BibenchError

DEBIAN_PACKAGE = "llvm-19"
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


def inner_loop(executed: Sequence[Executed]) -> list[Executed]:
    """Of the loops without a loop inside, the one that does most of the products; [] if nothing loops.

    executed: by address.
    """
    spans = sorted((to, i.address) for i in executed if (to := _jumps_back_to(i)) is not None)
    innermost = [
        (start, end)
        for start, end in spans
        if not any((s, e) != (start, end) and start <= s and e <= end for s, e in spans)
    ]
    bodies = [[i for i in executed if start <= i.address <= end] for start, end in innermost]
    return max(bodies, key=lambda body: sum(i.products * i.count for i in body), default=[])


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


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def cycles(body: Sequence[Executed], cpu: str) -> float:
    """Cycles of one run through the loop on this core, as llvm-mca models it. Raises ModelUnavailable."""
    assembly = disassemble(body, cpu)
    options = ["-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={_ITERATIONS}", "-json"]
    report = json.loads(_llvm("llvm-mca", options, assembly))
    return report["CodeRegions"][0]["SummaryView"]["TotalCycles"] / _ITERATIONS


def disassemble(body: Sequence[Executed], cpu: str) -> str:
    """Assembly, a line for each instruction."""
    code = "\n".join(" ".join(f"0x{byte:02x}" for byte in i.code.to_bytes(4, "little")) for i in body)
    return _llvm("llvm-mc", ["--disassemble", "--triple=aarch64", f"--mcpu={cpu}"], code)


def _llvm(tool: str, options: Sequence[str], text: str) -> str:
    paths = (shutil.which(f"{tool}-{version}") for version in _VERSIONS)
    path = next((path for path in paths if path), None)
    if path is None:
        line = f"apt-get install -y --no-install-recommends {DEBIAN_PACKAGE}"
        raise ModelUnavailable(f"{tool}, version 19 or newer, is not installed. Type: {line}")
    result = subprocess.run([path, *options], input=text, capture_output=True, text=True)
    if result.returncode != 0:
        raise BibenchError(f"{tool} failed: {result.stderr.strip().splitlines()[0]}")
    return result.stdout
