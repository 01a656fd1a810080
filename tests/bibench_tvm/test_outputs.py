"""Where commands write what they were asked for: a link stays one, and so does what is no regular file."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bibench_tvm import compile_model
from bibench_tvm.artifact.artifact import Artifact
from tests.nodes import Pipe, full


@pytest.fixture
def running(artifact: Artifact, tmp_path: Path) -> list[object]:
    np.save(tmp_path / "x.npy", np.ones((1, 4, 8, 8), np.float32))
    return [artifact.folder, "--input", tmp_path / "x.npy", "--output"]


def test_run_writes_through_a_link(command: Callable, running: list, artifact: Artifact, tmp_path: Path):
    (tmp_path / "y.npy").symlink_to("elsewhere.npy")
    assert command("run", *running, tmp_path / "y.npy").code == 0
    assert (tmp_path / "y.npy").is_symlink()
    np.testing.assert_array_equal(
        np.load(tmp_path / "elsewhere.npy"), artifact.run(np.load(tmp_path / "x.npy"))
    )


def test_run_writes_to_a_pipe(command: Callable, running: list, artifact: Artifact, tmp_path: Path):
    pipe = Pipe(tmp_path / "pipe")
    assert command("run", *running, tmp_path / "pipe").code == 0
    assert (tmp_path / "pipe").is_fifo()
    y = np.load(io.BytesIO(pipe.content))
    np.testing.assert_array_equal(y, artifact.run(np.load(tmp_path / "x.npy")))


def test_run_says_what_cannot_be_written(command: Callable, running: list, tmp_path: Path):
    reason = full(tmp_path / "full")
    mode = (tmp_path / "full").stat().st_mode
    done = command("run", *running, tmp_path / "full", "--json")
    assert (done.code, done.json) == (1, {"error": f"{tmp_path / 'full'} cannot be written: {reason}."})
    assert (tmp_path / "full").stat().st_mode == mode


def test_an_artifact_is_made_where_a_link_leads(invoke: Callable, small_file: Path, tmp_path: Path):
    """Also where there is nothing yet."""
    (tmp_path / "made").symlink_to("elsewhere")
    done = invoke("compile", small_file, "--target", "host", "--out", tmp_path / "made")
    assert done.code == 0
    assert (tmp_path / "made").is_symlink() and (tmp_path / "elsewhere/manifest.json").is_file()


def test_report_and_bench_write_through_links(command: Callable, artifact: Artifact, tmp_path: Path):
    (tmp_path / "results").mkdir()
    (tmp_path / "page.md").symlink_to("elsewhere.md")
    assert command("report", tmp_path, "--out", tmp_path / "page.md").code == 0
    assert (tmp_path / "page.md").is_symlink() and (tmp_path / "elsewhere.md").read_text().startswith("# ")
    (tmp_path / "report.json").symlink_to("elsewhere.json")
    assert command("bench", artifact.folder, "--runs", 2, "--out", tmp_path).code == 0
    assert (tmp_path / "report.json").is_symlink()
    assert json.loads((tmp_path / "elsewhere.json").read_text())["complete"] is True


def test_report_says_what_cannot_be_written(command: Callable, tmp_path: Path):
    (tmp_path / "results").mkdir()
    reason = full(tmp_path / "page.md")
    done = command("report", tmp_path, "--out", tmp_path / "page.md")
    assert done.code == 1
    assert f"Error: {tmp_path / 'page.md'} cannot be written: {reason}.\n" in done.stderr


@pytest.mark.parametrize(
    "place", ["manifest.json", "model.so", "stored", "standalone/model.h", "x.npy", "link", "hard link"]
)
def test_run_does_not_overwrite_what_it_reads(
    invoke: Callable, small_file: Path, tmp_path: Path, place: str
) -> None:
    build = compile_model(small_file, target="host", out=tmp_path / "build", standalone=True).folder
    np.save(build / "x.npy", np.ones((1, 4, 8, 8), np.float32))
    [library] = build.glob("model-*.so")
    (build / "link").symlink_to("manifest.json")
    (build / "hard link").hardlink_to(library)
    output = library if place == "stored" else build / place
    before = {path: path.read_bytes() for path in build.rglob("*") if path.is_file()}
    assert output in before
    line = ["run", build, "--input", build / "x.npy", "--output"]
    done = invoke(*line, output, "--json")
    assert done.code == 2 and done.json["error"].startswith(f"{output} would overwrite ")
    assert {path: path.read_bytes() for path in build.rglob("*") if path.is_file()} == before
    for _ in range(2):  # the user's own file in the folder may be written, and written again
        assert invoke(*line, build / "y.npy").code == 0


def test_commands_do_not_overwrite_what_they_read(
    invoke: Callable, small_file: Path, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "model.so").write_bytes(small_file.read_bytes())
    done = invoke("compile", tmp_path / "model.so", "--target", "host", "--out", tmp_path)
    assert done.code == 2 and "would overwrite" in done.stderr
    (tmp_path / "report.json").symlink_to(artifact.folder / "manifest.json")
    done = invoke("bench", artifact.folder, "--runs", 2, "--out", tmp_path)
    assert done.code == 2 and "would overwrite" in done.stderr
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "page.md").symlink_to("result.json")
    done = invoke("report", tmp_path, "--out", tmp_path / "page.md")
    assert done.code == 2 and "would overwrite" in done.stderr
