"""Standard output that cannot be written is told, once; who closes it, as `head` does, is told nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bibench_tvm.artifact.artifact import Artifact

LOST = "Error: Standard output cannot be written: "


def bibench(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "bibench_tvm", *map(str, arguments)]
    return subprocess.run(line, stderr=subprocess.PIPE, text=True, timeout=120, **options)


def unread() -> int:
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    "arguments",
    [
        "targets",
        "--help",
        "tracks table --help",
        "tracks table --paper --json",
        "summary --arch resnet20 --algorithm bnn",
        "train --show-recipe",
        "board --print-install",
        "compil --json",
        "summary --bla --json",
    ],
)
def test_full(arguments: str) -> None:
    with open("/dev/full", "w") as full:  # opened here: it is not the command that may replace it
        done = bibench(*arguments.split(), stdout=full)
    assert done.stderr.endswith(f"{LOST}No space left on device.\n")
    assert done.stderr.count(LOST) == 1 and "Traceback" not in done.stderr and done.returncode == 1


@pytest.mark.parametrize("arguments", ["targets --json", "--help"])
def test_closed(arguments: str) -> None:
    done = bibench(*arguments.split(), preexec_fn=lambda: os.close(1))
    assert done.stderr == f"{LOST}Bad file descriptor.\n" and done.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    ["targets", "tracks table --help", "--help", "tracks table --paper", "tracks table --paper --json"],
)
def test_a_command_that_nobody_reads_ends_in_silence(arguments: str) -> None:
    with os.fdopen(unread(), "w") as nobody:
        done = bibench(*arguments.split(), stdout=nobody)
    assert "rror" not in done.stderr and "Traceback" not in done.stderr and done.returncode == 1


def test_what_was_done_is_there(small_file: Path, artifact: Artifact, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open("/dev/full", "w") as full:
        done = bibench("compile", small_file, "--target", "host", "--out", out, "--json", stdout=full)
        assert done.stderr.endswith(f"Written to {out}\n{LOST}No space left on device.\n")
        assert done.returncode == 1 and (out / "manifest.json").is_file()
        done = bibench("bench", artifact.folder, "--runs", 2, "--json", stdout=full)
        assert done.stderr.endswith(f"\n{LOST}No space left on device.\n") and done.returncode == 1
    with os.fdopen(unread(), "w") as nobody:
        done = bibench("compile", small_file, "--target", "host", "--out", out, stdout=nobody)
    assert done.returncode == 1 and "rror" not in done.stderr


def test_of_json_the_object_alone(tmp_path: Path) -> None:
    """What an algorithm of the user's own prints, when it is read and when it is asked, is no part of it."""
    (tmp_path / "own.py").write_text(
        "from trainers.operator import BinaryLayer, algorithms\n"
        "print('read', flush=True)\n"
        "@algorithms.register('own')\n"
        "class Own(BinaryLayer):\n"
        "    def count_scales(self, extents):\n"
        "        print('asked')\n"
        "        return 1, 1\n"
    )
    line = ["summary", "--arch", "resnet20@small", "--algorithm", "own", "--mine", "own.py"]
    done = bibench(*line, "--json", stdout=subprocess.PIPE, cwd=tmp_path)
    assert json.loads(done.stdout)["algorithm"] == "own"
    assert "read" in done.stderr and "asked" in done.stderr and done.returncode == 0
    assert "asked" in bibench(*line, stdout=subprocess.PIPE, cwd=tmp_path).stdout
