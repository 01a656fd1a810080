"""Puts the programs adb.py and ssh.py in the place of adb and ssh."""

import os
import stat
import sys
from pathlib import Path

import pytest

from rpc.emulation import qemu

SERIAL = "adb:R5CT20ABC"
HOST = "ssh:me@host"


def stand_in(name: str, variable: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the device's programs, of which the variable tells the stand-in for `name`."""
    there, tools = folder / f"there-{name}", folder / f"tools-{name}"
    there.mkdir()
    tools.mkdir()
    script, tool = Path(__file__).with_name(f"{name}.py"), tools / name
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv(variable, str(there))
    return there


def count_instructions(cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is an emulated one from now on, of QEMU's `cpu`."""
    plugin = qemu.plugin(qemu.emulator("qemu-aarch64"), qemu.NATIVE / "count_executed.c")
    monkeypatch.setenv("DEVICE_CPU", cpu)
    monkeypatch.setenv("DEVICE_COUNTS", str(plugin))
