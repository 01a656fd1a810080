"""`tracks run --mine FILE.py`: an algorithm of the user's own, and files that are none."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bibench_tvm.compile import app as compile_app
from bibench_tvm.summary import app as summary_app
from bibench_tvm.tracks.results import read_all
from tests.bibench_tvm.tracks.test_own import invoke
from trainers import list_algorithms

PART = ["--algorithm", "bnn", "--track", "learning_task", "--task", "standin_points"]
HEAD = """
import torch
from trainers.operator import BinaryLayer, algorithms

@algorithms.register("mine")
class Mine(BinaryLayer):
"""
GOOD = "    def scale(self, y, x, weight):\n        return y * weight.abs().mean()\n"
SCALE = "    def scale(self, y, x, weight):\n        "
BAD = {
    "return y * (1 / 0)\n": "line 8: ZeroDivisionError: division by zero.",
    "return y * float('nan')\n": "The loss is nan in epoch 1, step 1",
    "while True: pass\n": "s, and was stopped",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a good algorithm's results, beside fp32's and bnn's: trainings that take a minute."""
    out = tmp_path_factory.mktemp("mine")
    page = (Path(__file__).parents[3] / "docs/own-algorithm.md").read_text()
    (out / "own.py").write_text(page.split("```python\n")[1].split("```")[0])
    found = json.loads(invoke("run", out, *PART, "--mine", out / "own.py", "--json").stdout)
    assert found["jobs"] == {"done": 3}
    return out


def test_it_is_scored_beside_the_others(folder: Path) -> None:
    by_name = {result.key.algorithm: result for result in read_all(folder)[0]}
    assert by_name.keys() == {"fp32", "bnn", "mine"}
    rows = json.loads(invoke("table", folder, "--json").stdout)["profiles"]["quick"]
    assert {row["algorithm"]: row["overall"]["missing"] for row in rows} == {"bnn": [], "mine": []}
    (kept,) = folder.glob("mine/*/own.py")
    assert (
        str(kept.relative_to(folder)) in by_name["mine"].command
    )  # what was scored, whatever becomes of the user's file
    assert "mine" not in list_algorithms()


def test_it_is_compiled_in_bits(folder: Path, tmp_path: Path) -> None:
    (checkpoint,) = folder.glob("jobs/standin_points/*/mine@*/*/checkpoint.pt")
    given = [checkpoint, "--mine", folder / "own.py", "--target", "host", "--verify", 2, "--out", tmp_path]
    result = CliRunner().invoke(compile_app, [*map(str, given), "--json"])
    assert result.exit_code == 0, result.output
    manifest = json.loads(result.stdout)
    assert manifest["algorithm"] == "mine" and manifest["verification"]["integers_exact"]
    assert sum(layer["binarized"] for layer in manifest["layers"]) == 6
    without = CliRunner().invoke(compile_app, [str(checkpoint), "--target", "host", "--out", str(tmp_path)])
    assert "mine" in without.stderr and without.exit_code


@pytest.mark.parametrize("body", BAD, ids=["raises", "nan", "endless"])
def test_what_goes_wrong_in_it_is_a_sentence(folder: Path, body: str) -> None:
    before = {result.key.algorithm: result for result in read_all(folder)[0]}
    (folder / "own.py").write_text(HEAD + SCALE + body)
    limit = 5 if "while" in body else 100
    arguments = ["run", folder, *PART, "--mine", folder / "own.py", "--limit", limit, "--json"]
    found = json.loads(invoke(*arguments, code=1).stdout)
    assert found["jobs"] == {"done": 2, "failed": 1}
    assert BAD[body] in next(iter(found["failed"].values()))
    assert {result.key.algorithm: result for result in read_all(folder)[0]} == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x = (", "own.py, line 1: "),
        ("raise KeyError('x')", "own.py, line 1: KeyError: 'x'."),
        ("import no_such_module", "own.py, line 1: ModuleNotFoundError"),
        ("raise SystemExit(3)", "own.py, line 1: SystemExit: 3."),
        ("x = 1", "and it registers none."),
        (HEAD.replace("mine", "bnn") + GOOD, "The algorithm 'bnn' is registered twice"),
        (HEAD + GOOD + HEAD.replace("mine", "mine2") + GOOD, "and it registers mine and mine2."),
    ],
)
def test_files_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, sentence: str
) -> None:
    (tmp_path / "own.py").write_text(content)
    shown = invoke("run", tmp_path / "out", "--mine", tmp_path / "own.py", code=2).stderr
    assert sentence in " ".join(shown.split())
    assert "mine" not in list_algorithms() and "mine2" not in list_algorithms()
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(summary_app, ["--arch", "resnet20", "--mine", "own.py"]).stderr
    assert sentence in " ".join(shown.split())
    assert "fault of the program" not in shown
    assert "No such file" in invoke("run", tmp_path / "out", "--mine", tmp_path / "no.py", code=2).stderr
