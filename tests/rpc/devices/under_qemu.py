"""What the stand-ins for adb and ssh share: a device with the programs and the `uname` of 64-bit Arm."""

from pathlib import Path


def wrap(program: Path, kill: str = "") -> None:
    """Put a script that runs an Arm program under QEMU in its place. kill: a line of shell before."""
    if program.suffix == ".elf" or not program.is_file() or program.read_bytes()[:4] != b"\x7fELF":
        return
    program.rename(f"{program}.elf").chmod(0o700)  # QEMU asks for it
    program.write_text(f'#!/bin/sh\n{kill}\nexec qemu-aarch64 -cpu cortex-a76 {program}.elf "$@"\n')
    program.chmod(0o700)


def on_arm(line: str, machine: str = "aarch64") -> str:
    """A line of shell as it would be there."""
    return f"uname() {{ echo {machine}; }}; {line}"
