"""An artifact is whole and runs, or it is refused with a sentence."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bibench_tvm import BibenchError, compile_model, load
from bibench_tvm.artifact.artifact import Artifact


@pytest.fixture
def copy(artifact: Artifact, tmp_path: Path) -> Path:
    """A copy of the artifact of the small network, to be damaged."""
    return Path(shutil.copytree(artifact.folder, tmp_path / "copy"))


def edit(folder: Path, *keys: Any, value: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    place = manifest
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def whole(folder: Path) -> list[str]:
    """The names in the folder of an artifact and of nothing else."""
    stored = json.loads((folder / "manifest.json").read_text())["files"]["model.so"]
    return ["manifest.json", f"model-{stored}.so", "model.so"]


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        (
            ["schema_version"],
            2,
            "has schema version 2, and this program reads version 3. Compile the network",
        ),
        (["schema_version"], None, "has schema version None"),
        (["versions", "tvm"], "0.18.0", "was compiled with TVM 0.18.0, and TVM 0.27"),
        (["versions"], "0.27", "'versions' is not what this program writes there"),
        (["versions"], {}, "'versions' does not say that of TVM"),
        (["inputs"], {}, "'inputs' is not what this program writes there"),
        (["inputs", 0, "shape"], [1, -4], r"inputs.*shape.*' is not what"),
        (["inputs", 0, "shape"], [1, "4"], r"inputs.*shape.*' is not what"),
        (["inputs", 0, "shape"], [True], r"inputs.*shape.*' is not what"),
        (
            ["inputs", 0, "shape"],
            [1 << 40] * 2,
            "would have 1,208,925,",
        ),
        (["inputs", 0, "dtype"], "object", r"inputs\[0\].dtype' is not what"),
        (["inputs", 0, "dtype"], ["float32"], r"inputs\[0\].dtype' is not what"),
        (["outputs", 0], 7, r"outputs\[0\]' is not what"),
        (["target"], {"name": "host"}, "'target.triple' is missing"),
        (["target", "features"], [1], r"'target.features\[0\]' is not what"),
        (["layers", 0, "macs"], -1, r"layers\[0\].macs' is not what"),
        (["layers", 0, "geometry", "strides"], [0, 1], "the geometry of layer '[^']+' makes no sense"),
        (["layers", 0, "geometry", "kernel"], [3], r"geometry.kernel' is not what"),
        (["kernels", 0, "layer"], "nowhere", "its layers and kernels disagree"),
        (["verification"], {}, "'verification.backend' is missing"),
        (["files", "model.so"], "0" * 64, f"has no model-{'0' * 64}.so: the artifact is not whole"),
        (["files", "model.so"], "../" * 21 + "x", r"'files\[...\]' is not what"),
        (["files"], {}, "'files' does not say the sha256 of model.so"),
        (["files"], [], "'files' is not what this program writes there"),
    ],
)
def test_damaged_manifests(copy: Path, keys: list, value: Any, sentence: str) -> None:
    edit(copy, *keys, value=value)
    with pytest.raises(BibenchError, match=sentence):
        load(copy)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read"),
        (b"ELF\xff\xfe", "cannot be read"),
        (b"[1, 2]", "it holds a list"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"a":' * 100_000, "cannot be read"),
        (b'{"schema_version": ' + b"1" * 5000 + b"}", "cannot be read"),
        (b'{"schema_version": NaN}', "cannot be read"),
        (b'{"schema_version": 3.0}', "has schema version 3.0"),
    ],
)
def test_manifests_that_are_none(copy: Path, invoke: Callable, content: bytes, sentence: str) -> None:
    (copy / "manifest.json").write_bytes(content)
    done = invoke("run", copy, "--input", "x.npy", "--output", "y.npy", "--json")
    assert done.code == 1
    assert sentence in done.json["error"] and str(copy / "manifest.json") in done.json["error"]


def test_damaged_libraries(copy: Path, tmp_path: Path) -> None:
    (copy / "model.so").unlink()  # a name for people, and no part of the artifact
    load(copy)
    [library] = copy.glob("model-*.so")
    data = library.read_bytes()
    for damaged in (data[:-1], data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], b""):
        library.write_bytes(damaged)
        with pytest.raises(BibenchError, match="it was damaged or exchanged"):
            load(copy)
    library.unlink()
    with pytest.raises(BibenchError, match=f"has no {library.name}: the artifact is not whole"):
        load(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(BibenchError, match="is not an artifact: it has no manifest.json"):
        load(copy)
    with pytest.raises(BibenchError, match="There is no folder"):
        load(tmp_path / "nowhere")


def test_a_manifest_that_lies_about_the_shape(copy: Path) -> None:
    """The compiled network checks what it is given itself."""
    edit(copy, "inputs", 0, "shape", value=[1, 4, 16, 16])
    with pytest.raises(BibenchError, match="failed as it ran"):
        load(copy).run(np.zeros((1, 4, 16, 16), np.float32))


def test_another_architecture(invoke: Callable, small_file: Path, tmp_path: Path) -> None:
    assert invoke("compile", small_file, "--target", "rpi4b", "--out", tmp_path / "arm").code == 0
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 8, 8), np.float32))
    options = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    done = invoke("run", tmp_path / "arm", *options)
    assert done.code == 1
    assert "is for rpi4b (aarch64), and this machine is" in " ".join(done.stderr.split())
    assert not (tmp_path / "y.npy").exists()


def test_features_that_this_processor_lacks(copy: Path) -> None:
    edit(copy, "target", "features", value=["sve9"])
    with pytest.raises(BibenchError, match="this machine lacks sve9. Compile again"):
        load(copy).run(np.zeros((1, 4, 8, 8), np.float32))


def test_run(command: Callable, artifact: Artifact, small: torch.nn.Module, tmp_path: Path) -> None:
    """The real command, on a batch that is a multiple, without torch or onnx as on a board."""
    x = torch.randn(3, 4, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    for name in ("torch", "onnx"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('this is a board')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--json"]
    done = command("run", artifact.folder, *options, PYTHONPATH=path)
    assert done.code == 0, done.stderr
    assert done.json["outputs"] == [{"path": str(tmp_path / "y.npy"), "shape": [3, 5], "dtype": "float32"}]
    with torch.no_grad():
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), small(x), atol=1e-4)


DAMAGED = "is not a whole .npy file of numbers: it is damaged, of another kind, or of Python objects."


def archive() -> bytes:
    np.savez(content := io.BytesIO(), x=np.zeros((1, 4, 8, 8), np.float32))
    return content.getvalue()


# A header that promises more than any memory holds.
HUGE = (
    b"\x93NUMPY\x01\x00\x76\x00"
    + repr({"descr": "<f4", "fortran_order": False, "shape": (1 << 50,)}).encode().ljust(117)
    + b"\n"
)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((1, 4, 8, 9), np.float32), "has shape (1, 4, 8, 9), and the network takes (1, 4, 8, 8)"),
        (np.zeros((4, 8, 8), np.float32), "has shape (4, 8, 8), and the network takes (1, 4, 8, 8)"),
        (np.zeros((0, 4, 8, 8), np.float32), "has shape (0, 4, 8, 8)"),
        (np.zeros((1, 4, 8, 8)), "is float64, and the network takes float32"),
        (np.array([{}], object), DAMAGED),
        (np.array(["a"]), "is not a whole .npy file of numbers: it holds <U1."),
        (b"\x93NUMPY\x01\x00", DAMAGED),
        (b"", DAMAGED),
        (b"PK\x03\x04 a zip", DAMAGED),
        (HUGE, DAMAGED),
        (archive(), "is not a whole .npy file of numbers: it is a .npz archive"),
        (None, "x.npy cannot be read: No such file or directory."),
    ],
)
def test_run_refuses_inputs(
    invoke: Callable, artifact: Artifact, tmp_path: Path, array: Any, sentence: str
) -> None:
    path = tmp_path / "x.npy"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    done = invoke("run", artifact.folder, "--input", path, "--output", tmp_path / "y.npy", "--json")
    assert done.code == 2
    assert sentence in done.json["error"]
    assert not (tmp_path / "y.npy").exists()


def test_run_counts_inputs_and_outputs(invoke: Callable, artifact: Artifact, tmp_path: Path) -> None:
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(x, np.zeros((1, 4, 8, 8), np.float32))
    done = invoke("run", artifact.folder, "--input", x, "--input", x, "--output", y, "--json")
    assert done.code == 2 and "takes 1 input (" in done.json["error"] and "2 were given" in done.json["error"]
    done = invoke("run", artifact.folder, "--input", x, "--output", y, "--output", y, "--json")
    assert done.code == 2 and "give --output 1 times, and not 2 times" in done.json["error"]
    done = invoke("run", artifact.folder, "--input", x, "--output", tmp_path / "no" / "y.npy", "--json")
    assert done.code == 1 and "cannot be written" in done.json["error"]


SLOW = """
import sys, time
from bibench_tvm.compiling import compiler
from bibench_tvm.compile import app
build = compiler.build
compiler.build = lambda *a, **k: (build(*a, **k), print("built", flush=True), time.sleep(60))[0]
app(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle(artifact: Artifact, small_file: Path, copy: Path, number: int) -> None:
    """What was in the folder stays whole; what a SIGKILL leaves there, the next compilation clears away."""
    arguments = [str(small_file), "--target", "arm_cpu", "--out", str(copy)]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "built\n"
    [scratch] = copy.glob(".bibench-*")
    assert (scratch / "model.so").exists()
    # Another compilation into the same folder leaves the scratch folder of a living one alone.
    compile_model(small_file, target="host", out=copy)
    assert scratch.exists()
    process.send_signal(number)
    _, words = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 1)
    if number != signal.SIGKILL:
        assert "Stopped." in words and "Traceback" not in words
        assert not scratch.exists()
    assert load(copy).manifest["target"]["name"] == "host"
    compile_model(small_file, target="host", out=copy)
    assert names(copy) == whole(copy)
