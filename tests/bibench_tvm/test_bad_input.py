"""Bad input to `compile`: a sentence, exit code 2 or 1, one JSON object with --json, and nothing written."""

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from bibench_tvm.importer.bundled import NETWORK

ZOO = ("--arch", "resnet20@small", "--algorithm", "reactnet")


def refused(done: object, code: int, *sentences: str) -> None:
    for sentence in sentences:
        assert sentence in " ".join(done.stderr.split()), done.stderr
    assert done.code == code, done.stderr
    assert done.stdout == "" or list(json.loads(done.stdout)) == ["error"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "rpi4"], "There is no target 'rpi4'. Did you mean rpi4b or"),
        (["--target", "cuda"], "There is no target 'cuda'."),
        (["--target", "nvidia/jetson-nano"], "There is no target for a CPU 'nvidia/jetson-nano'."),
        (["--arch", "resnet19"], "There is no model 'resnet19'; did you mean 'resnet18' or"),
        (["--arch", "resnet20", "--algorithm", "xnr"], "There is no algorithm 'xnr'; did you mean 'xnor' or"),
        (["--arch", "resnet20", "--algorithm", "bnn", "--variant", "papr"], "did you mean 'paper'?"),
        (["--arch", "resnet20", "--input-shape", "1x4x32x32"], "expected input[1, 4, 32, 32] to have 3"),
        (["--algorithm", "bnn"], "name it with --arch"),
        (["--input-shape", "3xx"], "'3xx' is not an input shape"),
        (
            ["--input-shape", "foo:1,1,32,32"],
            "fashion_mnist_resnet20_reactnet.pt has no input 'foo'; its input",
        ),
        (
            ["--input-shape", "x:1", "--input-shape", "x:1"],
            "There are two shapes for the input 'x'; give one.",
        ),
        (["--input-shape", "1", "--input-shape", "2"], "There are two shapes without a name; write NAME:"),
        (["--pretrained", *ZOO, "--input-shape", "foo:1x3x32x32"], "has no input 'foo'; its input is x."),
        (["--verify", "301"], "comes with 300 images; --verify 301 asks for more"),
        (["--verify", "-1"], "--verify -1 makes no sense"),
        (
            ["missing\nof two lines.onnx"],
            "missing of two lines.onnx cannot be read: No such file or directory.",
        ),
        (["missing.pt2"], "missing.pt2 cannot be read: No such file or directory."),
        ([NETWORK, "--checkpoint", NETWORK], "give one of them"),
        ([NETWORK, "--arch", "resnet18"], "with arch 'resnet20', not 'resnet18'"),
    ],
)
def test_arguments(invoke: Callable, tmp_path: Path, arguments: list, sentence: str) -> None:
    target = [] if "--target" in arguments else ["--target", "host"]
    out = tmp_path / "made" / "for" / "it"
    refused(invoke("compile", *target, *arguments, "--out", out, "--json"), 2, sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["compile", "tune", "summary"])
@pytest.mark.parametrize("kind", ["onnx", "pt2", "checkpoint", "arch", "bundled"])
def test_a_shape_of_an_input_that_there_is_not(
    invoke: Callable, small: torch.nn.Module, small_file: Path, tmp_path: Path, command: str, kind: str
) -> None:
    if kind == "pt2":
        torch.export.save(torch.export.export(small, (torch.zeros(1, 4, 8, 8),)), tmp_path / "whole.pt2")
    known = {
        "onnx": [small_file],
        "pt2": [tmp_path / "whole.pt2"],
        "checkpoint": [NETWORK],
        "arch": ["--arch", "resnet20"],
        "bundled": [],
    }
    options = {
        "compile": ["--target", "host", "--out", tmp_path / "out"],
        "tune": ["--out", tmp_path / "out"],
    }
    done = invoke(
        command, *known[kind], *options.get(command, []), "--input-shape", "foo:1,3,32,32", "--json"
    )
    assert done.code == 2 and re.search(r" has no input 'foo'; its input is [\w.:]+\.$", done.json["error"])


def test_a_missing_file_as_a_user_sees_it(command: Callable, tmp_path: Path) -> None:
    done = command("compile", "missing.onnx", "--target", "host", "--out", tmp_path / "out", "--json")
    refused(done, 2, "Error: missing.onnx cannot be read: No such file or directory.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["onnx", "pt2", "checkpoint"])
@pytest.mark.parametrize("part", [0, 0.03, 0.5, 0.99])
def test_truncated_files(
    invoke: Callable, small: torch.nn.Module, small_file: Path, tmp_path: Path, kind: str, part: float
) -> None:
    whole = {"onnx": small_file, "checkpoint": NETWORK}.get(kind, tmp_path / "whole.pt2")
    if kind == "pt2":
        torch.export.save(torch.export.export(small, (torch.zeros(1, 4, 8, 8),)), whole)
    data = whole.read_bytes()
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(data[: int(len(data) * part)])
    refused(invoke("compile", cut, "--target", "host", "--out", tmp_path / "out"), 2, str(cut))
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_that_is_text(invoke: Callable, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n")
    refused(
        invoke("compile", path, "--target", "host", "--out", tmp_path / "out"), 2, f"{path} is a text file"
    )


def test_only_checkpoints_need_a_description(invoke: Callable, small_file: Path, tmp_path: Path) -> None:
    options = ["--target", "host", "--out", tmp_path / "out", "--algorithm", "bnn"]
    refused(
        invoke("compile", small_file, *options),
        2,
        "describes itself; algorithm can be given for a checkpoint",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers(
    invoke: Callable, small_file: Path, tmp_path: Path, value: float
) -> None:
    content = torch.load(NETWORK, weights_only=True)
    content["state_dict"]["layer1.0.conv1.weight"][3, 2, 1, 0] = value
    torch.save(content, tmp_path / "bad.pt")
    model = onnx.load(small_file)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    array = numpy_helper.to_array(weights).copy()
    array[0] = value
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    onnx.save(model, tmp_path / "bad.onnx")
    out = tmp_path / "out"
    for name, words in (("bad.pt", "layer1.0.conv1.weight"), ("bad.onnx", weights.name)):
        done = invoke("compile", tmp_path / name, "--target", "host", "--out", out)
        refused(done, 2, "NaN or infinite", words)
    assert not out.exists()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/bibench"])
def test_a_folder_that_cannot_be_written(
    invoke: Callable, small_file: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("precious")
    out = tmp_path / place
    done = invoke("compile", small_file, "--target", "host", "--out", out, "--json")
    refused(done, 2, f"The folder {out} cannot be written:")
    assert (tmp_path / "file").read_text() == "precious"


def test_no_linker(
    invoke: Callable, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ziglang" else find_spec(name)
    )
    monkeypatch.setenv("PATH", "")
    done = invoke("compile", small_file, "--target", "host", "--out", tmp_path / "out")
    refused(done, 1, "This needs the package ziglang. Type: ./install.sh compile")
    broken = tmp_path / "ld.lld"
    broken.write_text("#!/bin/sh\necho 'ld.lld: error: out of luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv(
        "PATH", f"{tmp_path}{os.pathsep}{os.path.dirname(shutil.which('sh', path=os.defpath))}"
    )
    done = invoke("compile", small_file, "--target", "host", "--out", tmp_path / "out")
    refused(done, 1, "The linker failed: ld.lld: error: out of luck")
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from bibench_tvm.compile import app

    done = CliRunner().invoke(app, ["missing.onnx", "--target", "host", "--debug", "--out", str(tmp_path)])
    assert isinstance(done.exception, ValueError) and done.exc_info[2] is not None
