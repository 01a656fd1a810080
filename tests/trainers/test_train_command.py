"""`python -m bibench_tvm.train`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import trainers
from bibench_tvm.train import app


def test_a_short_training(fashion_mnist: Path, tmp_path: Path) -> None:
    options = ["--data", fashion_mnist, "--epochs", "1", "--batch-size", "2", "--out", tmp_path / "o"]
    command = [sys.executable, "-m", "bibench_tvm.train", "--json", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert "epoch 1 of 1" in done.stderr
    _, metadata = trainers.load_checkpoint(result["checkpoint"])
    assert metadata["extra"]["test_accuracy"] == result["test_accuracy"]
    assert metadata["extra"]["command"] == "python -m bibench_tvm.train " + " ".join(command[3:])


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--arch", "resnet2"], 2, "There is no model 'resnet2'"),
        (["--arch", "resnet18"], 2, "is for inputs (1, 224, 224), but fashion_mnist has (1, 32, 32)"),
        (["--algorithm", "reacnet"], 2, "did you mean 'reactnet'"),
        (["--task", "fashion"], 2, "There is no task 'fashion'; did you mean 'fashion_mnist'"),
        (["--keep", "layer9"], 2, "There is no module to keep 'layer9'"),
        (["--epochs", "0"], 2, "epochs"),
        (["--data", "/nowhere"], 1, "apt-get install dataset-fashion-mnist"),
    ],
)
def test_failures(tmp_path: Path, options: list[str], code: int, sentence: str) -> None:
    result = CliRunner().invoke(app, ["--out", str(tmp_path), *options])
    assert result.exit_code == code
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
