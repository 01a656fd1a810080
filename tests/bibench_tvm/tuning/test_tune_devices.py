"""Tuning over adb and ssh: as over a tracker, and whatever becomes of the device, no trial is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schedules.records import records
from tests.rpc.devices.stand_in import SERIAL, count_instructions


def test_by_instructions_the_schedules_are_those_of_a_tracker(
    invoke: Callable, small_file: Path, phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_instructions("cortex-a72", monkeypatch)
    found = {}
    for name, options in ("tracker", ["--target", "rpi4b"]), ("device", ["--board", SERIAL]):
        done = invoke("tune", small_file, *options, "--trials", 12, "--out", tmp_path / name, "--json")
        assert done.code == 0, done.stderr
        print(done.stdout[:3000])
        written = records.read(tmp_path / name / records.FILE)
        found[name] = {task: record.tile for task, record in written.best.items()}
    assert found["device"] == found["tracker"] and found["device"]
