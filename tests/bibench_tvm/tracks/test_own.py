"""`python -m bibench_tvm.tracks` on one's own results: a part of a profile, run for real."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bibench_tvm.tracks.__main__ import app
from bibench_tvm.tracks.results import Result, read_all

PART = ["--algorithm", "bnn", "--track", "learning_task", "--task", "standin_points", "--track", "complexity"]


def invoke(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the results of two trainings, which take half a minute."""
    out = tmp_path_factory.mktemp("tracks")
    found = json.loads(invoke("run", out, *PART, "--json").stdout)
    assert found == {"folder": str(out), "profile": "quick", "jobs": {"done": 2}, "failed": {}}
    return out


def lasting(text: str) -> dict[str, Any]:
    """What a result says that does not tell when it was written."""
    content = json.loads(text)
    del content["hashes"]["content"]
    return content | {"ended": "", "conditions": {}}


def test_what_is_done_is_not_run_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    invoke("run", folder, *PART)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")} == before
    path = next((folder / "results").rglob("*.json"))
    content = path.read_text()
    path.unlink()
    invoke("run", folder, *PART)  # from what the job said
    assert lasting(path.read_text()) == lasting(content)
    path.write_text(re.sub(r'"value": [\d.]+', '"value": 0.123', content))
    assert "changed after it was written" in invoke("check", folder, code=1).stdout
    invoke("run", folder, *PART)
    assert lasting(path.read_text()) == lasting(content)


def test_a_folder_that_was_moved(folder: Path, tmp_path: Path) -> None:
    """Nothing of it runs again, what it lacks does, and its results say the same."""
    moved = shutil.copytree(folder, tmp_path / "first")
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.suffix}
    invoke("run", moved, *PART)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not any(str(folder) in path.read_text() for path in moved.rglob("*.json"))
    (result,) = (moved / "results").rglob("bnn-*.json")
    content = result.read_text()
    (job,) = moved.glob("jobs/*/*/bnn/*/job.json")
    for path in (result, job):
        path.unlink()
    unfinished = shutil.move(moved, tmp_path / "second")
    invoke("run", unfinished, *PART)
    again = unfinished / result.relative_to(moved)
    said = [msgspec.json.decode(text, type=Result) for text in (content, again.read_text())]
    assert said[0].command == said[1].command and said[0].hashes["job"] == said[1].hashes["job"]
    assert said[0].figure("accuracy") == said[1].figure("accuracy")
    ran = [path for path in unfinished.rglob("job.json") if path.stat().st_mtime_ns > max(before.values())]
    assert ran == [unfinished / job.relative_to(moved)]
    again.unlink()
    invoke("run", shutil.move(unfinished, tmp_path / "third"), *PART)
    (again,) = (tmp_path / "third/results").rglob("bnn-*.json")
    assert json.loads(again.read_text())["hashes"].keys() == {"job", "data", "checkpoint", "content"}


def test_results(folder: Path) -> None:
    found = read_all(folder)[0]
    assert [(result.key.algorithm, result.key.track) for result in found] == [
        ("bnn", "learning_task"),
        ("fp32", "learning_task"),
    ]
    for result in found:
        assert result.figure("accuracy")
        assert {figure.kind for figure in result.figures} == {"stand-in"}
        assert result.hashes.keys() == {"job", "data", "checkpoint", "content"}
        assert result.command[:2] == ["bibench_tvm.train", "--json"]
        assert result.versions["torch"]
        assert result.machine["cores"]


def test_table_status_check_and_export(folder: Path) -> None:
    accuracy = {result.key.algorithm: result.figure("accuracy") for result in read_all(folder)[0]}
    relative = 100 * accuracy["bnn"] / accuracy["fp32"]  # type: ignore[operator]
    shown = invoke("table", folder).stdout
    assert f"{relative:.2f}" in shown
    assert "with stand-ins" in shown
    profiles = json.loads(invoke("table", folder, "--json").stdout)["profiles"]
    assert profiles["quick"][0]["overall"]["value"] == pytest.approx(relative)
    both = json.loads(invoke("table", folder, "--paper", "--json").stdout)
    assert {"profiles", "numbers"} <= both.keys()
    assert json.loads(invoke("status", folder, "--json").stdout)["results"]["learning_task"] == 2
    assert "2 results, 0 at fault, 0 figures missing." in invoke("check", folder, "--strict").stdout
    lines = invoke("export", folder).stdout.splitlines()
    assert lines[0].startswith("track,task,arch,algorithm,")
    assert len(json.loads(invoke("export", folder, "--json").stdout)["figures"]) == len(lines) - 1


def test_what_is_at_fault_is_named(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results" / "somewhere"
    results.mkdir(parents=True)
    whole = sorted((folder / "results").rglob("*.json"))
    (results / "moved.json").write_bytes(whole[0].read_bytes())
    (results / "cut.json").write_bytes(whole[1].read_bytes()[:-20])
    found = json.loads(invoke("check", tmp_path, "--json", code=1).stdout)
    assert found["results"] == 1
    assert any("cut.json is no result" in sentence for sentence in found["at_fault"])
    assert any("belongs into" in sentence for sentence in found["at_fault"])


def test_what_is_damaged_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Each command goes on with the others, names it, and ends with 1."""
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    left, cut = sorted((damaged / "results").rglob("*.json"))
    cut.write_bytes(cut.read_bytes()[:-20])
    copy = left.with_name("copy.json")
    shutil.copy(left, copy)
    for command in (["status"], ["table"], ["table", "--paper"], ["export"]):
        shown = invoke(*command, damaged, code=1)
        assert f"{cut} is no result" in shown.stderr and f"{copy} holds the result" in shown.stderr
        assert "bnn" in shown.stdout or command == ["status"]
        found = invoke(*command, damaged, "--json", code=1)
        assert f"{copy} holds the result" in found.stderr
        said = json.loads(found.stdout)
        assert len(said["left_out"]) == 2
        assert command != ["status"] or said["results"]["learning_task"] == 1
    for command in ("status", "table", "export"):
        assert json.loads(invoke(command, folder, "--json").stdout)["left_out"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "x", "--profile", "quik"], 2, "There is no profile 'quik'"),
        (["run", "x", "--track", "tasks"], 2, "There is no track 'tasks'"),
        (["run", "x", "--algorithm", "bn"], 2, "There is no algorithm 'bn'"),
        (["run", "x", "--task", "glue/cola"], 2, "The profile quick has no task 'glue/cola'"),
        (["table"], 2, "Give the folder of the results, or --paper"),
        (["table", "/nowhere"], 1, "There is no folder /nowhere"),
        (["status", "/nowhere"], 1, "There is no folder /nowhere"),
        (["check", "/nowhere"], 1, "There is no folder /nowhere"),
    ],
)
def test_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in " ".join(invoke(*arguments, code=code).stderr.split())
    assert not list(tmp_path.iterdir())
