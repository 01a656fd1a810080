"""What all commands share."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_tvm.__main__ import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_framework(name: str) -> None:
    """`bibench X` is `python -m bibench_tvm.X`, and its help comes at once."""
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'tvm', 'onnx'))); "
        f"sys.argv = ['bibench', '{name}', '--help']; from bibench_tvm.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Usage: bibench {name} " in done.stdout and "--json" in done.stdout
    assert done.stderr == ""


def test_the_list_of_commands(command: Callable) -> None:
    done = command("__main__", "--help")
    assert done.code == 0 and all(name in done.stdout for name in COMMANDS)
    done = command("__main__", "compil")
    assert (done.code, done.stderr) == (2, "Error: There is no command 'compil'. Did you mean compile?\n")
    done = command("__main__")
    assert done.code == 2 and "Usage:" in done.stderr


@pytest.mark.parametrize(
    ("line", "sentence", "more"),
    [
        ("run a --input x --output y --threads abc", "--threads takes a whole number, and not abc.", "run"),
        ("run a --input x --output y --threads 1.5", "--threads takes a whole number, and not 1.5.", "run"),
        ("run a --input x --output y --threads 0", "--threads takes 1 or more, and not 0.", "run"),
        ("bench a --wait nan", "--wait takes 604800 or less, and not nan.", "bench"),
        ("train --save-every x", "--save-every takes a number, and not x.", "train"),
        ("tracker --port 99999", "--port takes 65535 or less, and not 99999.", "tracker"),
        ("tracks run a --cores 0", "--cores takes 1 or more, and not 0.", "tracks run"),
        (
            "run a --input x --output y --threads 9999999",
            "--threads takes 1024 or less, and not 9999999.",
            "run",
        ),
        ("bench a --runs 999999999999", "--runs takes 100000 or less, and not 999999999999.", "bench"),
        ("bench a --limit inf", "--limit takes 604800 or less, and not inf.", "bench"),
        ("compile --verify 9999999", "--verify takes 100000 or less, and not 9999999.", "compile"),
        ("tune --out a --trials 9999999", "--trials takes 1000000 or less, and not 9999999.", "tune"),
        ("train --epochs 9999999", "--epochs takes 1000000 or less, and not 9999999.", "train"),
        ("train --seed 9999999999", "--seed takes 4294967295 or less, and not 9999999999.", "train"),
        ("tracks run a --cores 9999", "--cores takes 1024 or less, and not 9999.", "tracks run"),
        ("tracks runn", "No such command 'runn'. Did you mean 'run'?", "tracks"),
        ("compile --target", "Option '--target' requires an argument.", "compile"),
    ],
)
def test_numbers_that_are_none(command: Callable, line: str, sentence: str, more: str) -> None:
    done = command("__main__", *line.split(), "--json")
    if "requires" in sentence:  # it takes --json for its value
        done = command("__main__", *line.split())
    assert (done.code, done.stderr) == (2, f"Error: {sentence} `bibench {more} --help` says more.\n")
    assert not done.stdout or done.json == {"error": sentence}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["compile", "--target", "host", "--out", ""], "--out"),
        (["compile", "--target", "host", "--out="], "--out"),
        (["compile", "", "--target", "host"], "An argument"),
        (["run", "a", "--input", "", "--output", "y"], "--input"),
        (["run", "a", "--input", "x", "--output", ""], "--output"),
        (["bench", "a", "--images", ""], "--images"),
        (["tracks", "run", ""], "An argument"),
        (["tracks", "run", "a", "--mine", ""], "--mine"),
        (["report", "a", "--figures="], "--figures"),
        (["tune", "--out", ""], "--out"),
        (["train", "--data", ""], "--data"),
    ],
)
def test_paths_that_are_empty(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("__main__", *line, "--json")
    assert (done.code, done.json) == (2, {"error": f"{name} is empty, and should be a path."})
    assert list(tmp_path.iterdir()) == []


def test_targets(invoke: Callable) -> None:
    done = invoke("targets", "--json")
    names = [target["name"] for target in done.json["targets"]]
    assert {"host", "arm_cpu", "armv7", "rpi3b+", "rpi4b", "rpi5", "kirin970", "apple-m1"} <= set(names)
    assert "rpi4b" in invoke("targets").stdout
