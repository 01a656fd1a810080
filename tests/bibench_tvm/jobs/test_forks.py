"""A forked process does what one of its own does, and goes with its nursery."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bibench_tvm.jobs.forks import Nursery

COUNT = ["bibench_tvm.summary", "--json", "--arch", "resnet20@small", "--algorithm", "reactnet"]
ENDLESS = ["bibench_tvm.train", "--arch", "resnet20@small", "--algorithm", "fp32", "--epochs", "99", "--out"]


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "printed", tmp_path / "words"
    for path in found:
        path.touch()
    return found


def test_prints_and_ends_as_a_process_does(
    nursery: Nursery, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (COUNT, [*COUNT[:-1], "reactnot"], ["bibench_tvm.train", "--evaluate", "here"]):
        for path in files:
            path.write_bytes(b"")
        fork = nursery.start(command, os.environ | {"COLUMNS": "90"}, *files)
        assert fork is not None
        code = fork.wait(60)
        line = [sys.executable, "-m", *command]
        done = subprocess.run(line, env=os.environ | {"COLUMNS": "90"}, capture_output=True, text=True)
        assert (code, *(path.read_text() for path in files)) == (done.returncode, done.stdout, done.stderr)
    assert nursery.process is not None
    assert len(os.listdir(f"/proc/{nursery.process.pid}/task")) == 1


def test_killed_with_its_nursery(nursery: Nursery, files: tuple[Path, Path], tmp_path: Path) -> None:
    fork = nursery.start([*ENDLESS, str(tmp_path / "out")], os.environ, *files)
    assert fork is not None and nursery.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.1)
    nursery.process.kill()
    assert fork.wait(10) == -signal.SIGKILL
    for _ in range(600):
        if not Path("/proc", str(fork.pid)).exists():
            break
        time.sleep(0.05)
    assert not Path("/proc", str(fork.pid)).exists()
    assert nursery.start(COUNT, os.environ, *files) is None


def test_one_that_is_killed_leaves_the_others(
    nursery: Nursery, files: tuple[Path, Path], tmp_path: Path
) -> None:
    first = nursery.start([*ENDLESS, str(tmp_path / "out")], os.environ, *files)
    second = nursery.start(COUNT, os.environ, *files)
    assert first is not None and second is not None
    os.kill(first.pid, signal.SIGKILL)
    assert (first.wait(30), second.wait(60)) == (-signal.SIGKILL, 0)
    assert json.loads(files[0].read_text())["parameters"] > 0
