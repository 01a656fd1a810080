"""What the stand-ins for adb and ssh share: a device with the programs and the `uname` of an Arm processor.

DEVICE_CPU: QEMU's name of it; DEVICE_COUNTS: the plugin with which it counts instructions, and has no time.
"""

import os
from pathlib import Path

_MACHINE = {62: "x86_64", 40: "arm", 183: "aarch64"}  # ELF's numbers


def wrap(program: Path, kill: str = "") -> None:
    """Put a script that runs an Arm program under QEMU in its place. kill: a line of shell before."""
    if program.suffix == ".elf" or not program.is_file() or program.read_bytes()[:4] != b"\x7fELF":
        return
    machine = _MACHINE[program.read_bytes()[18]]
    program.rename(f"{program}.elf").chmod(0o700)  # QEMU asks for it
    line = f"exec qemu-{machine} -cpu {os.environ.get('DEVICE_CPU', 'cortex-a76')}"
    if plugin := os.environ.get("DEVICE_COUNTS"):
        line = (
            f"exec env -i BIBENCH_EXECUTED={program}.count {line[5:]} -plugin {plugin},page={program}.count"
        )
    program.write_text(f'#!/bin/sh\n{kill}\n{line} {program}.elf "$@"\n')
    program.chmod(0o700)


def on_arm(line: str, machine: str = "aarch64") -> str:
    """A line of shell as it would be there."""
    return f"uname() {{ echo {machine}; }}; {line}"
