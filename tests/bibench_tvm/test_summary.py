"""`bibench summary`."""

from collections.abc import Callable
from pathlib import Path

import pytest

import trainers


def test_by_name(invoke: Callable) -> None:
    done = invoke("summary", "--arch", "resnet18", "--algorithm", "bnn", "--json")
    assert done.code == 0 and (done.json["model"], done.json["algorithm"]) == ("resnet18", "bnn")
    assert round(done.json["compression"], 2) == 13.27
    assert done.json["as_the_paper_counts"]["compression"] == done.json["compression"]
    assert [layer["name"] for layer in done.json["layers"] if not layer["binary"]] == ["conv1", "fc"]


def test_as_text(invoke: Callable) -> None:
    shown = invoke("summary").stdout  # the bundled network
    assert "resnet20, reactnet" in shown and "outside the layers" in shown
    assert "Compression 22.25, speed-up 42.07. As the BiBench paper counts: 23.54, 35.31." in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_files(invoke: Callable, small_file: Path, tmp_path: Path) -> None:
    """A checkpoint says all; of an ONNX file there is a ? where it does not."""
    sizes = {**trainers.default_sizes("resnet20@small"), "num_classes": 7}
    model = trainers.binarize(trainers.create_model("resnet20@small", **sizes), "xnor")
    path = tmp_path / "checkpoint.pt"
    trainers.save_checkpoint(path, model, arch="resnet20@small", sizes=sizes, algorithm="xnor")
    done = invoke("summary", path, "--json")
    assert done.json["parameters"] == sum(p.numel() for p in model.parameters())
    assert done.json["algorithm"] == "xnor" and done.json["layers"][-1]["parameters"] == 7 * 33
    done = invoke("summary", small_file, "--json")
    assert done.json["bits"] is None and done.json["layers"][1]["operations"] == 221_184
    assert "Compression ?, speed-up ?." in invoke("summary", small_file).stdout


def test_input_shapes(invoke: Callable) -> None:
    at = ("--arch", "resnet18@small", "--algorithm", "bnn", "--json", "--input-shape")
    once, four = (invoke("summary", *at, f"1x3x{n}x{n}").json for n in (32, 64))
    assert four["binary_operations"] == 4 * once["binary_operations"] and four["bits"] == once["bits"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--arch", "resnet19"], 2, "There is no model 'resnet19'; did you mean"),
        (
            ["--arch", "resnet20", "--algorithm", "bnnn"],
            2,
            "There is no algorithm 'bnnn'; did you mean 'bnn'",
        ),
        (["--algorithm", "bnn"], 2, "name it with --arch."),
        (["nowhere.pt"], 2, "nowhere.pt cannot be read: No such file or directory."),
        (["pyproject.toml"], 2, "pyproject.toml is a text file, not a model"),
        (["--arch", "resnet20", "--input-shape", "1x5x32x32"], 1, "does not run on inputs of these shapes"),
        (["--arch", "resnet20", "--input-shape", "y:1x5x32x32"], 2, "resnet20 has no input 'y'"),
    ],
)
def test_errors(
    invoke: Callable, arguments: list[str], code: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    done = invoke("summary", *arguments, "--json")
    assert done.code == code and sentence in done.json["error"] and len(done.json["error"].splitlines()) == 1
    assert done.stderr.replace("\n", " ").strip() == f"Error: {done.json['error']}"
