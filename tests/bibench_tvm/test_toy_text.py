"""A network for text, which has neither a convolution nor one input nor floats to read, all the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import trainers
from bibench_tvm import load
from bibench_tvm.compile import app as compile_app
from bibench_tvm.importer.source import sizes_of
from bibench_tvm.train import app as train_app
from tests.trainers.toy_text import HasMark, toy_text
from trainers.models import models
from trainers.tasks import tasks

BINARY = {"query", "key", "value", "out"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models._entries, "toy_text", toy_text)
    monkeypatch.setitem(tasks._entries, "has_mark", HasMark)


def run(app: Any, *options: object) -> Any:
    result = CliRunner().invoke(app, ["--json", *map(str, options)])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_it_trains_compiles_and_verifies(tmp_path: Path) -> None:
    options = ["--task", "has_mark", "--arch", "toy_text", "--epochs", 8, "--lr", 0.03, "--batch-size", 32]
    trained = run(train_app, *options, "--out", tmp_path / "trained")
    assert trained["test_accuracy"] > 0.9

    task = HasMark()
    inputs, _ = task.batch("test", range(64))
    samples = {name: value.numpy() for name, value in inputs.items()}
    np.savez(tmp_path / "samples.npz", **samples)
    np.save(tmp_path / "labels.npy", task.data["test"][2].numpy())
    given = ["--samples", tmp_path / "samples.npz", "--labels", tmp_path / "labels.npy", "--verify", 64]
    target = ["--target", "host", "--out", tmp_path / "build"]
    manifest = run(compile_app, "--checkpoint", trained["checkpoint"], *given, *target)
    assert [(spec["name"], spec["shape"], spec["dtype"]) for spec in manifest["inputs"]] == [
        ("input_ids", [1, 8], "int64"),
        ("attention_mask", [1, 8], "int64"),
    ]
    assert {layer["name"] for layer in manifest["layers"] if layer["binarized"]} == BINARY
    assert all(layer["reason"] for layer in manifest["layers"] if not layer["binarized"])
    assert (manifest["model"], manifest["algorithm"]) == ("toy_text", "reactnet")
    assert manifest["verification"]["passed"] is True
    assert manifest["verification"]["accuracy"]["source"] == trained["test_accuracy"]

    network, metadata = trainers.load_checkpoint(trained["checkpoint"])
    assert metadata["sizes"] == HasMark.sizes
    with torch.inference_mode():
        expected = network(**{name: value[:1] for name, value in inputs.items()})
    found = load(tmp_path / "build").run(*(value[:1] for value in samples.values()))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)

    torch.save(network.state_dict(), tmp_path / "state.pt")
    named = trainers.load_checkpoint(tmp_path / "state.pt", arch="toy_text", algorithm="reactnet")[1]
    assert named["sizes"] == {**HasMark.sizes, "width": 16}


def test_fresh_weights_and_shapes_by_name(tmp_path: Path) -> None:
    shapes = ["--input-shape", "input_ids:2x16", "--input-shape", "attention_mask:2x16"]
    options = ["--arch", "toy_text", "--algorithm", "bnn", *shapes, "--verify", 2, "--target", "host"]
    manifest = run(compile_app, *options, "--out", tmp_path)
    assert [spec["shape"] for spec in manifest["inputs"]] == [[2, 16]] * 2
    assert manifest["verification"]["passed"] is True
    assert sizes_of(load(tmp_path).record) == {"num_classes": 3, "vocabulary": 20, "length": 16, "width": 16}


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (["1x8"], "has 2 inputs (input_ids, attention_mask), so every --input-shape needs the name"),
        (["words:1x8"], "has no input 'words'; its inputs are input_ids, attention_mask."),
        (["a:1", "b:1", "c:1"], "has 2 inputs, but 3 shapes were given"),
    ],
)
def test_shapes_that_are_refused(tmp_path: Path, shapes: list[str], sentence: str) -> None:
    options = [text for shape in shapes for text in ("--input-shape", shape)]
    fixed = ["--arch", "toy_text", "--target", "host", "--out", str(tmp_path)]
    result = CliRunner().invoke(compile_app, [*fixed, *options])
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--task", "has_mark", "--arch", "resnet20"],
            "resnet20 has no size 'vocabulary'; it takes",
        ),
        (["--arch", "toy_text"], "toy_text has no size 'in_channels'; it takes num_classes, vocabulary"),
    ],
)
def test_a_network_that_is_not_for_the_task(tmp_path: Path, options: list[str], sentence: str) -> None:
    result = CliRunner().invoke(train_app, ["--out", str(tmp_path), *options])
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
