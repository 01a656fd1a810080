"""`python -m bibench_tvm.compile` and `compile_model`: what comes out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from bibench_tvm import compile_model, load
from bibench_tvm.importer.bundled import NETWORK

AARCH64 = (183).to_bytes(2, "little")  # ELF's e_machine


def test_the_bundled_network_for_arm(command: Callable, board: None, tmp_path: Path) -> None:
    done = command("compile", "--target", "arm_cpu", "--verify", 3, "--json", "--out", tmp_path / "a/b")
    assert done.code == 0, done.stderr
    manifest = done.json
    assert manifest.pop("path") == str(tmp_path / "a/b")
    stored = f"model-{manifest['files']['model.so']}.so"
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == ["manifest.json", stored, "model.so"]
    assert manifest == json.loads((tmp_path / "a/b/manifest.json").read_text())
    library = (tmp_path / "a/b/model.so").read_bytes()
    assert library[:4] == b"\x7fELF" and library[18:20] == AARCH64

    assert manifest["schema_version"] == 3
    assert (manifest["model"], manifest["algorithm"]) == ("resnet20", "reactnet")
    target = {"name": "arm_cpu", "triple": "aarch64-linux-gnu", "cpu": "generic", "features": ["neon"]}
    assert manifest["target"] == target
    assert [(s["shape"], s["dtype"]) for s in manifest["inputs"]] == [([1, 1, 32, 32], "float32")]
    assert [(s["shape"], s["dtype"]) for s in manifest["outputs"]] == [([1, 10], "float32")]
    assert [layer["name"] for layer in manifest["layers"] if not layer["binarized"]] == ["conv1", "fc"]
    for layer in manifest["layers"]:
        assert layer["op"] in ("conv2d", "linear") and layer["macs"] > 0 and layer["weight_bytes"] > 0
        assert bool(layer["reason"]) is not layer["binarized"]
    layer = next(layer for layer in manifest["layers"] if layer["name"] == "layer1.0.conv1")
    assert (layer["macs"], layer["weight_bytes"]) == (32 * 32 * 16 * 16 * 9, 16 * 16 * 9 // 8)
    assert manifest["size_bytes"]["deployed"] == len(library) < manifest["size_bytes"]["float32"] / 5
    record = manifest["verification"]
    assert (record["backend"], record["samples"]) == ("qemu-aarch64 -cpu cortex-a53", 3)
    assert record["passed"] is True and record["agreement"] == 1 and record["max_abs_error"] < 1e-4
    assert record["accuracy"]["source"] == record["accuracy"]["compiled"]
    assert manifest["tuning"] == {"records": []}
    assert {"tvm", "torch", "python"} <= set(manifest["versions"])

    lines = done.stderr.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("Written"))
    assert "\x1b" not in done.stderr and "\r" not in done.stderr
    assert any(line.split()[:3] == ["layer1.0.conv1", "conv2d", "yes"] for line in lines)
    assert "conv1: In float: its input is the network's input" in done.stderr


def test_checkpoints_say_what_they_are(tmp_path: Path) -> None:
    model, about = trainers.load_checkpoint(NETWORK)
    x = torch.randn(3, 1, 32, 32)
    artifact = compile_model(NETWORK, out=tmp_path)
    assert artifact.manifest == load(tmp_path).manifest
    with torch.no_grad():
        np.testing.assert_allclose(load(tmp_path).run(x.numpy()), model(x), atol=1e-4)

    plain = tmp_path / "weights.pt"
    torch.save(model.state_dict(), plain)
    described = dict(arch=about["arch"], algorithm=about["algorithm"])
    manifest = compile_model(plain, out=tmp_path, **described).manifest
    assert (manifest["model"], manifest["algorithm"]) == ("resnet20", "reactnet")
    with pytest.raises(ValueError, match="algorithm 'reactnet', not 'bnn'"):
        compile_model(NETWORK, out=tmp_path, algorithm="bnn")


def test_a_network_with_nothing_binary_compiles_and_says_so(
    invoke: Callable, network: Callable, assert_verified: Callable, tmp_path: Path
) -> None:
    done = invoke("compile", "--target", "host", "--arch", "resnet20", "--json", "--out", tmp_path)
    assert done.code == 0, done.stderr
    assert "Nothing in this network is binary" in done.stderr
    assert done.json["algorithm"] == "fp32"
    assert not any(layer["binarized"] for layer in done.json["layers"])
    assert all(layer["reason"] for layer in done.json["layers"])
    manifest = assert_verified(network("resnet20", "fp32"), torch.zeros(1, 3, 32, 32))
    assert (manifest["algorithm"], manifest["model"]) == (None, "ResNet")


def test_fresh_networks_by_name(invoke: Callable, tmp_path: Path) -> None:
    options = ["--arch", "resnet20", "--algorithm", "xnor", "--variant", "released"]
    done = invoke(
        "compile", "--target", "host", *options, "--input-shape", "2x3x32x32", "--json", "--out", tmp_path
    )
    assert done.code == 0, done.stderr
    assert (done.json["model"], done.json["algorithm"]) == ("resnet20", "xnor")
    assert done.json["inputs"][0]["shape"] == [2, 3, 32, 32]


class Sum(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + y, (x * y).sum()


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("make", [torch.ones, lambda *shape: np.ones(shape, np.float32)])
def test_example_inputs_of_any_kind(kind: type, make: Callable, small: nn.Module, tmp_path: Path) -> None:
    artifact = compile_model(Sum(), kind([make(2, 3), make(2, 3)]), out=tmp_path)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    added, total = artifact.run(x, x)
    np.testing.assert_array_equal(added, 2 * x)
    assert total == (x * x).sum()
    with pytest.raises(ValueError, match="an output without a batch"):
        artifact.run(np.tile(x, (2, 1)), np.tile(x, (2, 1)))
    one = compile_model(small, make(1, 4, 8, 8), out=tmp_path).manifest
    assert one["algorithm"] == "bnn" and one["inputs"][0]["shape"] == [1, 4, 8, 8]


def test_a_pt2_file_and_batches(small: nn.Module, tmp_path: Path) -> None:
    program = torch.export.export(small, (torch.zeros(2, 4, 8, 8),))
    torch.export.save(program, tmp_path / "small.pt2")
    artifact = compile_model(tmp_path / "small.pt2", out=tmp_path / "out")
    assert (artifact.manifest["model"], artifact.manifest["algorithm"]) == ("small", None)
    x = torch.randn(6, 4, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(artifact.run(x.numpy()), small(x), atol=1e-4)


def test_mixed_algorithms_have_no_name(tmp_path: Path) -> None:
    layers = [trainers.binarize(nn.Linear(16, 16), name) for name in ("bnn", "dorefa")]
    manifest = compile_model(nn.Sequential(*layers), torch.zeros(1, 16), out=tmp_path).manifest
    assert manifest["algorithm"] is None
    assert [layer["binarized"] for layer in manifest["layers"]] == [True, True]


@pytest.mark.parametrize("name", ["rpi4b", "kirin980", "apple-m1", "armv7", "raspberry-pi/4b-aarch64"])
def test_named_targets(name: str, small: nn.Module, tmp_path: Path) -> None:
    artifact = compile_model(small, torch.zeros(1, 4, 8, 8), target=name, out=tmp_path)
    machine = (40).to_bytes(2, "little") if name == "armv7" else AARCH64
    assert (tmp_path / "model.so").read_bytes()[18:20] == machine
    assert "neon" in artifact.manifest["target"]["features"]


def test_the_bundled_network_at_another_size(invoke: Callable, tmp_path: Path) -> None:
    """The images are not of that size: it is verified as a network is that comes with none."""
    done = invoke(
        "compile",
        "--target",
        "host",
        "--input-shape",
        "2x1x16x16",
        "--verify",
        1,
        "--json",
        "--out",
        tmp_path,
    )
    assert done.json["inputs"][0]["shape"] == [2, 1, 16, 16]
    assert done.json["verification"]["passed"] is True and "accuracy" not in done.json["verification"]


def test_a_factor_below_1_is_explained(invoke: Callable, small_file: Path, tmp_path: Path) -> None:
    """A small network's code is larger than its weights, and counts."""
    said = " ".join(invoke("compile", small_file, "--target", "host", "--out", tmp_path).stdout.split())
    sizes = load(tmp_path).record.size_bytes
    assert sizes.float32 < sizes.deployed
    factor = f"a factor of {sizes.float32 / sizes.deployed:.2f}, since what is deployed has the code in it,"
    assert factor in said
    said = " ".join(invoke("compile", "--target", "host", "--out", tmp_path / "bundled").stdout.split())
    sizes = load(tmp_path / "bundled").record.size_bytes
    assert f"a factor of {sizes.float32 / sizes.deployed:.1f}. A run takes" in said
