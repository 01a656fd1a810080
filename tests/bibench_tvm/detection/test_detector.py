"""Detectors, compiled for this machine: they find what they found before."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import trainers
from bibench_tvm import BibenchError
from bibench_tvm.compiling.compiler import CompileOptions, compile_network
from bibench_tvm.compiling.two_stages import compile_stages, two_stages
from bibench_tvm.detection.detector import load_detector
from bibench_tvm.importer.source import Network
from bibench_tvm.measuring.accuracy import forward_of_artifact
from bibench_tvm.run import app

SIZES = {"num_classes": 3, "image_size": 64}


def trained(name: str, folder: Path) -> tuple[Any, Path]:
    """A network with statistics as a training leaves them, and its checkpoint."""
    torch.manual_seed(0)
    model: Any = trainers.binarize(trainers.create_model(name, **SIZES), "bnn")
    with torch.no_grad():
        for _ in range(3):
            boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7]]).repeat(4, 1, 1)
            labels = torch.ones(4, 1).long()
            targets = {"boxes": boxes, "labels": labels, "difficult": labels < 0}
            model.loss(model(torch.randn(4, 3, 64, 64)), targets)
    path = folder / "checkpoint.pt"
    trainers.save_checkpoint(path, model, arch=name, sizes=SIZES, algorithm="bnn")
    return model.eval(), path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Faster R-CNN, and the folder of it compiled."""
    folder = tmp_path_factory.mktemp("detector")
    model, path = trained("faster_rcnn@small", folder)
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    network = two_stages(Network(model=path))
    assert network is not None
    options = CompileOptions(target="host", out=folder / "out", verify=1, samples=images)
    made = compile_stages(network, options, path)
    for stage in (made.first, made.second):
        assert stage.record.verification.passed and stage.record.algorithm == "bnn"
    names = {
        f"{n}.{layer.name}": layer.binarized
        for n in ("first", "second")
        for layer in getattr(made, n).record.layers
    }
    assert names == {layer.name: layer.binary for layer in trainers.binarization_report(model)}
    return model, folder / "out"


def test_both_stages_find_what_the_network_finds(compiled: tuple[Any, Path]) -> None:
    model, folder = compiled
    detector = load_detector(folder)
    assert detector.record.source and detector.record.source.file == "checkpoint.pt"
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
    for found in (detector.run(images.numpy()), forward_of_artifact(detector)(images)):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-4, atol=1e-4)


def test_run_takes_a_detector(compiled: tuple[Any, Path], tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(1, 3, 64, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", images)
    given = [str(compiled[1]), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "b.npy")]
    once = CliRunner().invoke(app, given)
    assert (once.exit_code, "The network's outputs are boxes, scores" in once.stderr) == (2, True)
    both = CliRunner().invoke(app, [*given, "--output", str(tmp_path / "s.npy")])
    assert both.exit_code == 0, both.output
    boxes, scores = load_detector(compiled[1]).run(images)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), boxes)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), scores)


def test_on_a_board_both_networks_run_there(
    compiled: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = load_detector(compiled[1])
    there = []
    for stage in (detector.first, detector.second):
        monkeypatch.setattr(stage, "run_on", lambda board, x, run=stage.run: there.append(board) or run(x))
    images = np.zeros((2, 3, 64, 64), np.float32)
    for ours, here in zip(detector.run_on("a board", images), detector.run(images), strict=True):
        np.testing.assert_array_equal(ours, here)
    assert there == ["a board"] * 2


def test_stages_that_do_not_belong_together_are_refused(compiled: tuple[Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(compiled[1], folder, symlinks=True)
    file = folder / "detector.json"
    whole = json.loads(file.read_text())
    for change, sentence in (
        ({"libraries": whole["libraries"] | {"second": "0" * 64}}, "do not belong together"),
        ({"scales": [0.5]}, "do not fit each other"),
        ({"scales": []}, "damaged, or of another version"),
        ({"schema_version": 2}, "reads version 1"),
        ({"more": 1}, "damaged, or of another version"),
    ):
        file.write_text(json.dumps(whole | change))
        with pytest.raises(BibenchError, match=sentence):
            load_detector(folder)
    file.write_text("{")
    with pytest.raises(BibenchError, match="damaged"):
        load_detector(folder)
    file.unlink()
    with pytest.raises(BibenchError, match=r"has no detector\.json"):
        load_detector(folder)


def test_a_folder_holds_a_network_or_a_detector(compiled: tuple[Any, Path], tmp_path: Path) -> None:
    _, path = trained("ssd300@small", tmp_path)
    assert two_stages(Network(model=path)) is None
    with pytest.raises(BibenchError, match="holds a detector of two stages"):
        compile_network(Network(model=path), CompileOptions(target="host", out=compiled[1]))
    network = two_stages(Network(model=trainers.create_model("faster_rcnn@small")))
    assert network is not None
    (tmp_path / "manifest.json").touch()
    with pytest.raises(BibenchError, match="holds the artifact of a network"):
        compile_stages(network, CompileOptions(target="host", out=tmp_path))
