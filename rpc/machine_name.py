"""One name for each kind of machine, which Linux, Android, Apple and LLVM call by several."""

from __future__ import annotations

import platform
from pathlib import Path

_ALIKE = {"amd64": "x86_64", "arm64": "aarch64", "arm": "armv7l"}


def machine_name(said: str) -> str:
    """said: as `uname -m` says it, or a triple of LLVM. `x86_64`, `aarch64`, `armv7l` for 32-bit Arm from
    version 7 on; what is none of these as it is, in lower case."""
    name = said.lower().split("-")[0]
    if name.startswith(("armv7", "armv8", "thumbv7", "thumbv8")):
        return "armv7l"
    return _ALIKE.get(name, name)


def this_machine() -> str:
    return machine_name(platform.machine())


def model_name() -> str:
    """Of this machine's processor, as Linux has it; nothing where it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
