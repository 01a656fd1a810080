"""The README tells the truth: its Python runs, and its commands are there with the options that it uses."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bibench_tvm.__main__ import app_of

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = re.findall(r"^    (?:bibench |.*python -m bibench_tvm\.)(.*?)(?: +#.*)?$", README, re.MULTILINE)


def test_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    """Twice in one process, as in a notebook, and with other weights each time."""
    results = []
    for _ in range(2):
        names: dict = {}
        exec("\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)), names)
        results.append(names["y"])
    assert results[0].shape == results[1].shape == (4, 10)
    assert not np.array_equal(*results)
    assert (tmp_path / "build" / "manifest.json").exists()


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands(line: str) -> None:
    """What is not an option is refused before --help is."""
    name, *arguments = shlex.split(line)
    done = CliRunner().invoke(app_of(name), [*arguments, "--help"])
    known = set(re.findall(r"--[\w-]+", done.stdout))
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10
