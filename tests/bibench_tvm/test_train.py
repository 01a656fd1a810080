"""`python -m bibench_tvm.train`: a training, judging what it gave, and sweeps."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import trainers
from bibench_tvm.train import app
from rpc.session import list_boards, parse_address
from tests.trainers.idx import write_fashion_mnist
from trainers.tasks import tasks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fashion_mnist")
    write_fashion_mnist(folder)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `train --json` prints."""
    return train("--arch", "resnet20@small", *of(data), "--out", tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def artifact(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    command = [
        "bibench_tvm.compile",
        "--checkpoint",
        trained["checkpoint"],
        "--target",
        "host",
        "--out",
        folder,
    ]
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True, capture_output=True)
    return folder


def of(data: Path) -> list[object]:
    return ["--data", data, "--epochs", 1, "--batch-size", 5]


def train(*options: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["--json", *map(str, options)])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_training_of_two_processes_in_bfloat16(data: Path, tmp_path: Path) -> None:
    options = ["--arch", "resnet20@small", *of(data), "--devices", 2, "--accelerator", "cpu"]
    options += ["--precision", "bf16-mixed", "--out", tmp_path]
    command = [sys.executable, "-m", "bibench_tvm.train", "--json", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    result = json.loads(done.stdout)
    # 20 images in batches of 5 for each of two processes.
    assert done.stderr.count("epoch 1 of 1, step 2 of 2") == 2
    assert "Lightning" not in done.stderr
    _, metadata = trainers.load_checkpoint(result["checkpoint"])
    assert metadata["extra"]["test_accuracy"] == result["test_accuracy"]
    assert metadata["extra"]["command"] == "python -m bibench_tvm.train " + " ".join(command[3:])


def test_a_recipe_is_shown(tmp_path: Path) -> None:
    options = ["--recipe", "sgd", "--set", "ema=0.9", "--epochs", "3", "--show-recipe"]
    shown = yaml.safe_load(CliRunner().invoke(app, options).stdout)
    assert (shown["optimizer"], shown["lr"], shown["ema"], shown["epochs"]) == ("sgd", 0.1, 0.9, 3)
    for task, rate in (("fashion_mnist", 2e-3), ("cifar10", 1e-3)):
        shown = yaml.safe_load(CliRunner().invoke(app, ["--task", task, "--show-recipe"]).stdout)
        assert shown["lr"] == rate


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--arch", "resnet2"], 2, "There is no model 'resnet2'"),
        (["--arch", "bert_tiny4"], 2, "bert_tiny4 has no size 'in_channels'"),
        (["--arch", "resnet18@small", "--init", "/nowhere.pt"], 2, "There is no file /nowhere.pt"),
        (["--algorithm", "reacnet"], 2, "did you mean 'reactnet'"),
        (["--task", "fashion"], 2, "There is no task 'fashion'; did you mean 'fashion_mnist'"),
        (["--keep", "layer9"], 2, "There is no module to keep 'layer9'"),
        (["--epochs", "0"], 2, "epochs"),
        (["--recipe", "papers"], 2, "There is no recipe 'papers'; did you mean 'paper'"),
        (["--set", "lr"], 2, "A setting is KEY=VALUE"),
        (["--set", "reactnet.x=1"], 2, "reactnet has no hyper-parameter 'x'"),
        (["--data", "/nowhere"], 1, "dataset-fashion-mnist"),
        (["--board", "pi"], 2, "--board and --tracker go with --evaluate"),
        (["--evaluate", "/nowhere.pt"], 2, "There is no file /nowhere.pt"),
        (["--evaluate", "/nowhere.pt", "--board", "pi"], 2, "is no artifact's folder"),
        (["--evaluate", "/", "--tracker", "127.0.0.1:1"], 2, "goes with --board"),
        (["--sweep", "/nowhere.yaml"], 2, "/nowhere.yaml cannot be read"),
        (["--sweep", "/nowhere.yaml", "--epochs", 3], 2, "--epochs does nothing beside --sweep"),
        (["--evaluate", "/nowhere.pt", "--set", "lr=1"], 2, "--set does nothing beside --evaluate"),
        (["--cores", 2], 2, "--cores goes with --sweep"),
        (["--accelerator", "abacus"], 2, "accelerator"),
        (["--precision", "7"], 2, "precision"),
    ],
)
def test_failures(data: Path, tmp_path: Path, options: list[str], code: int, sentence: str) -> None:
    small = ["--data", str(data), "--out", str(tmp_path), "--limit-train", "4"]
    result = CliRunner().invoke(app, [*small, *options])
    assert sentence in " ".join(result.stderr.split())
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_what_was_compiled_is_judged_alike(trained: dict[str, Any], artifact: Path, data: Path) -> None:
    judged = [train("--evaluate", path, "--data", data) for path in (trained["checkpoint"], artifact)]
    assert judged[0]["metrics"] == judged[1]["metrics"] == {"accuracy": trained["test_accuracy"]}


def test_an_artifact_of_a_larger_batch(data: Path, tmp_path: Path) -> None:
    """Ten images in batches of four: the last is filled up, and what filled it does not count."""
    from bibench_tvm import compile_model

    torch.manual_seed(0)
    model = trainers.create_model("resnet20@small", num_classes=10, in_channels=1).eval()
    compile_model(model, torch.zeros(4, 1, 32, 32), target="host", out=tmp_path)
    task = tasks["fashion_mnist"](data)
    images, labels = task.batch("test", range(10))
    expected = float((model(images).argmax(1) == labels).float().mean())
    assert train("--evaluate", tmp_path, "--data", data)["metrics"]["accuracy"] == pytest.approx(expected)


@pytest.fixture(scope="module")
def tracker() -> Iterator[str]:
    """A tracker with this machine as the board `here`."""
    running: list[Any] = []

    def start(*arguments: str) -> Any:
        command = [sys.executable, "-m", *arguments, "--json"]
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
        text = ""
        while not text.endswith("}\n"):
            text += running[-1].stdout.readline()
        return json.loads(text)

    try:
        about = start("bibench_tvm.tracker", "--port", "0")
        address = f"{about['host']}:{about['port']}"
        start("bibench_tvm.board", "--tracker", address, "--key", "here")
        end = time.monotonic() + 60
        while not list_boards(parse_address(address)):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield address
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def test_judged_on_a_board(trained: dict[str, Any], artifact: Path, data: Path, tracker: str) -> None:
    judged = train("--evaluate", artifact, "--data", data, "--board", "here", "--tracker", tracker)
    assert (judged["board"], judged["emulated"]) == ("here", False)
    assert judged["metrics"] == {"accuracy": trained["test_accuracy"]}


def test_an_artifact_of_another_task(artifact: Path, data: Path, tmp_path: Path) -> None:
    from tests.trainers.toy_text import HasMark

    tasks._entries["has_mark"] = HasMark
    try:
        result = CliRunner().invoke(app, ["--evaluate", str(artifact), "--task", "has_mark"])
    finally:
        del tasks._entries["has_mark"]
    assert result.exit_code == 2
    assert "The artifact's inputs are" in " ".join(result.stderr.split())


def test_a_sweep(data: Path, tmp_path: Path) -> None:
    grid = {
        "task": "fashion_mnist",
        "arch": "resnet20@small",
        "algorithm": ["bnn", "fp32"],
        "data": str(data),
    }
    grid |= {"set": {"epochs": 1, "batch_size": 5}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(grid))
    options = ["--sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "out"]
    rows = train(*options)["rows"]
    assert [(row["algorithm"], len(row["values"]), row["missing"]) for row in rows] == [
        ("bnn", 1, []),
        ("fp32", 1, []),
    ]
    started = time.monotonic()
    assert train(*options)["rows"] == rows
    assert time.monotonic() - started < 5
    (data / "t10k-labels-idx1-ubyte.gz").rename(data / "kept")
    try:
        options[-1] = tmp_path / "again"
        result = CliRunner().invoke(app, [*map(str, options)])
    finally:
        (data / "kept").rename(data / "t10k-labels-idx1-ubyte.gz")
    assert result.exit_code == 1
    name = "fashion_mnist/resnet20@small/bnn/paper,batch_size=5,epochs=1,seed=0"
    (line,) = (line for line in result.stdout.splitlines() if line.startswith(name))
    assert " blocked: it needs" in line
    assert "There is no" in line
    assert "There is no" in result.stderr
    assert np.isfinite([value for row in rows for value in row["values"]]).all()
