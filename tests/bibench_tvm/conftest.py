"""What these tests share: images, networks, commands as a user types them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import trainers
from bibench_tvm.__main__ import app_of
from bibench_tvm.artifact.artifact import Artifact, load
from bibench_tvm.cli.images import load_images
from bibench_tvm.compiling.compiler import compile_model
from bibench_tvm.importer.bundled import IMAGES
from rpc import emulated
from tests.rpc.devices.stand_in import stand_in


@pytest.fixture(scope="session")
def board() -> None:
    """An absent emulator is a failure, with the line to type: a skipped test would look like a passed one."""
    if problem := emulated.missing():
        pytest.fail(problem)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: None) -> Path:
    """The folder of a phone's programs, which adb.py stands in for."""
    return stand_in("adb", "PHONE_FOLDER", tmp_path, monkeypatch)


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: None) -> Path:
    """The folder of a host's programs, which ssh.py stands in for."""
    return stand_in("ssh", "HOST_FOLDER", tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """float32 (300, 3, 32, 32): the bundled images, grey repeated to three channels."""
    return np.repeat(load_images(IMAGES)[0], 3, axis=1)


@pytest.fixture(scope="session")
def network(images: np.ndarray) -> Callable[..., torch.nn.Module]:
    """Untrained networks whose batch norms have seen images, and so have statistics as trained ones do."""

    def build(arch: str, algorithm: str, **options: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        model = trainers.binarize(trainers.create_model(arch), algorithm, **options).train()
        with torch.no_grad():
            for batch in np.split(images[:64], 4):
                model(torch.from_numpy(batch))
        return model.eval()

    return build


@pytest.fixture(scope="session")
def small() -> torch.nn.Module:
    """Two convolutions of which the second is binary, and a linear layer: (1, 4, 8, 8) -> (1, 5)."""
    torch.manual_seed(0)
    return trainers.binarize(
        torch.nn.Sequential(
            torch.nn.Conv2d(4, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.Conv2d(16, 24, 3, padding=1),
            torch.nn.Flatten(),
            torch.nn.Linear(24 * 64, 5),
        ),
        "bnn",
    ).eval()


@pytest.fixture(scope="session")
def artifact(small: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The small network for this machine; not to be changed."""
    out = tmp_path_factory.mktemp("artifact")
    return compile_model(small, torch.zeros(1, 4, 8, 8), target="host", out=out)


@pytest.fixture(scope="session")
def small_file(small: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as an ONNX file, which is read without PyTorch and so fast."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    torch.onnx.export(small, (torch.zeros(1, 4, 8, 8),), path, dynamo=False)
    return path


class Result:
    """What a command did: exit code, standard output and standard error, which never has a traceback."""

    def __init__(self, code: int, stdout: str, stderr: str):
        assert "Traceback" not in stdout + stderr, stderr
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)


@pytest.fixture
def command() -> Callable[..., Result]:
    """Run `python -m bibench_tvm.NAME ARGUMENTS`, as a user does; keywords are environment variables."""

    def run(name: str, *arguments: object, **environment: str) -> Result:
        line = [sys.executable, "-m", f"bibench_tvm.{name}", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment})
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """The same within this process, which is faster."""

    def run(name: str, *arguments: object) -> Result:
        done = CliRunner().invoke(app_of(name), [str(argument) for argument in arguments])
        return Result(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def assert_verified(board: None, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Compile for each target and compare with the source: integers are exact. Gives the last manifest."""

    def check(model: object, example: object = None, runs: int = 2, **options: Any) -> dict[str, Any]:
        for target in ("host", "arm_cpu"):
            compile_model(model, example, target=target, out=tmp_path / target, verify=runs, **options)
            manifest = load(tmp_path / target).manifest
            record = manifest["verification"]
            assert record["samples"] == runs
            assert record["integers_exact"] is True
            assert record["passed"] is True, record["reason"]
        return manifest

    return check
