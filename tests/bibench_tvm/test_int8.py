"""--float-layers int8, from the outside."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import trainers
from bibench_tvm import compile_model, load
from bibench_tvm.cli.images import load_images
from bibench_tvm.compiling import runners
from bibench_tvm.importer.bundled import IMAGES, NETWORK


def dtypes(manifest: dict) -> dict[str, str]:
    return {layer["name"]: layer["dtype"] for layer in manifest["layers"]}


def test_the_bundled_network(assert_verified: Callable) -> None:
    images, labels = (array[:64] for array in load_images(IMAGES))
    manifest = assert_verified(NETWORK, samples=images, labels=labels, float_layers="int8")
    assert set(dtypes(manifest).values()) == {"binary", "int8"}
    layers = {layer["name"]: layer for layer in manifest["layers"]}
    assert layers["conv1"]["weight_bytes"] == 16 * 9 and layers["fc"]["weight_bytes"] == 64 * 10
    assert layers["conv1"]["reason"].startswith("its input is the network's input")
    record = manifest["float_layers"]
    assert (record["mode"], record["calibrated_on"]) == ("int8", "samples")
    assert (record["calibration_samples"], record["compared_samples"]) == (32, 64)
    assert record["agreement"] > 0.9 and abs(record["accuracy_difference"]) < 0.05
    assert record["accuracy_difference"] == record["accuracy"]["int8"] - record["accuracy"]["float32"]
    # The integers of these layers are checked as those of the binary ones are.
    checks = {check["name"]: check for check in manifest["verification"]["layers"]}
    assert checks["conv1"]["sums"] > 0 and checks["fc"]["wrong_sums"] == 0


def test_nothing_is_int8_unless_asked(small: torch.nn.Module, tmp_path: Path) -> None:
    manifest = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path).manifest
    assert manifest["float_layers"] == {"mode": "float32"}
    assert dtypes(manifest) == {"0": "float32", "2": "binary", "4": "float32"}


def test_from_the_shell(command: Callable, small_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(40, 4, 8, 8)).astype("f4"))
    np.save(tmp_path / "t.npy", rng.integers(0, 5, 40))
    files = ["--samples", tmp_path / "x.npy", "--labels", tmp_path / "t.npy", "--out", tmp_path / "out"]
    done = command("compile", small_file, "--target", "host", "--float-layers", "int8", *files, "--json")
    assert done.code == 0, done.stderr
    record = done.json["float_layers"]
    assert (record["calibrated_on"], record["calibration_samples"]) == ("samples", 32)
    assert record["compared_samples"] == 40 and set(record["accuracy"]) == {"int8", "float32"}
    told = " ".join(done.stderr.split())
    assert "Float layers are in int8, calibrated on 32 samples." in told
    assert "In int8: its input is the network's input" in told
    assert load(tmp_path / "out").run(np.load(tmp_path / "x.npy")).shape == (40, 5)


@pytest.mark.parametrize("target", ["host", "armv7", "rpi5"])
def test_random_numbers_are_called_that(
    invoke: Callable, small_file: Path, tmp_path: Path, target: str
) -> None:
    done = invoke("compile", small_file, "--target", target, "--float-layers", "int8", "--out", tmp_path)
    assert done.code == 0, done.stderr
    assert "calibrated on 32 inputs of random numbers" in " ".join(done.stdout.split())
    record = load(tmp_path).manifest["float_layers"]
    assert record["calibrated_on"] == "random numbers"
    assert record["accuracy"] is None and record["accuracy_difference"] is None
    assert record["max_abs_error"] > 0 and 0 <= record["agreement"] <= 1


def test_outputs_are_near_those_in_float(tmp_path: Path) -> None:
    """Float from end to end, so that no sign makes much of a little: plain, depthwise, grouped, dense."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(24, 24, 3, padding=1, groups=24),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(24, 40, 1, groups=2),
        torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(40, 8, 2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 25, 7),
    ).eval()
    x = torch.randn(32, 3, 16, 16)
    artifact = compile_model(network, x[:1], samples=x.numpy(), float_layers="int8", out=tmp_path, verify=2)
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.abs(artifact.run(x.numpy()) - expected).max() < 0.05 * np.abs(expected).max()
    assert sorted(dtypes(artifact.manifest).values()) == ["float32", *["int8"] * 4]
    [left] = [layer for layer in artifact.manifest["layers"] if layer["dtype"] == "float32"]
    assert left["op"] == "conv2d_transpose" and left["notes"].startswith("It stays float32")
    assert artifact.manifest["verification"]["passed"] is True


def test_smaller(tmp_path: Path) -> None:
    """The weights that stay float are most of this one."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(8, 64, 3), torch.nn.Conv2d(64, 64, 3), torch.nn.Flatten()]
    network = trainers.binarize(torch.nn.Sequential(*layers, torch.nn.Linear(64 * 16, 400)), "bnn").eval()
    sizes = {}
    for kind in ("float32", "int8"):
        compiled = compile_model(network, torch.zeros(1, 8, 8, 8), float_layers=kind, out=tmp_path / kind)
        sizes[kind] = compiled.manifest["size_bytes"]["deployed"]
    assert sizes["float32"] - sizes["int8"] > 1_000_000  # three of four bytes of 1.64 MB


def test_wrong_integers_are_found(
    small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runners.run_here

    def wrong(library: Path, samples: list) -> object:
        for result in run(library, samples):
            if len(result) > 1:
                sums = result[-1].copy()
                sums.flat[0] += 1
                result = [*result[:-1], sums]
            yield result

    monkeypatch.setattr(runners, "run_here", wrong)
    options = dict(float_layers="int8", out=tmp_path, verify=2)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), **options).manifest["verification"]
    assert record["integers_exact"] is False and record["passed"] is False
    assert record["reason"].startswith("These layers do not compute what they should: 4 (2 of its ")


def test_bad_values(invoke: Callable, small_file: Path, tmp_path: Path) -> None:
    arrays = {
        "good": np.zeros((4, 4, 8, 8), "f4"),
        "flat": np.zeros((4, 256), "f4"),
        "nan": np.full((4, 4, 8, 8), np.nan, "f4"),
        "none": np.zeros((0, 4, 8, 8), "f4"),
        "text": np.array(["a", "b"]),
        "labels": np.zeros(4, "i8"),
        "few": np.zeros(3, "i8"),
        "floats": np.zeros(4, "f4"),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "noise.npy").write_bytes(b"not an array")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-5])
    good = ["--samples", tmp_path / "good.npy"]
    int8 = ["--float-layers", "int8"]
    for arguments, sentence in [
        (["--float-layers", "int4"], "There is no arithmetic of float layers 'int4'. Did you mean int8?"),
        (["--float-layers", ""], "Known are float32, fp16, int8."),
        ([*int8, "--samples", "missing.npy"], "missing.npy cannot be read: No such file or directory."),
        ([*int8, "--samples", tmp_path / "noise.npy"], "noise.npy is not a whole .npy file of numbers"),
        ([*int8, "--samples", tmp_path / "cut.npy"], "cut.npy is not a whole .npy file of numbers"),
        (
            [*int8, "--samples", tmp_path / "flat.npy"],
            "The samples have shape (4, 256); 4 runs of the network",
        ),
        ([*int8, "--samples", tmp_path / "nan.npy"], "The samples hold NaN or infinities."),
        ([*int8, "--samples", tmp_path / "none.npy"], "they have to be numbers, and some"),
        ([*int8, "--samples", tmp_path / "text.npy"], "text.npy is not a whole .npy file of numbers"),
        ([*int8, *good, "--labels", tmp_path / "few.npy"], "one integer for each of the 4 samples"),
        ([*int8, *good, "--labels", tmp_path / "floats.npy"], "The labels are float32 (4,)"),
        (["--labels", tmp_path / "labels.npy"], "--labels are the classes of --samples; give both."),
        (
            [*good, "--verify", "5"],
            "The samples have shape (4, 4, 8, 8); 5 runs of the network take at least",
        ),
        (good, "--samples are what --verify and --float-layers int8 work on; give one of these."),
    ]:
        done = invoke(
            "compile", small_file, "--target", "host", *arguments, "--out", tmp_path / "out", "--json"
        )
        assert done.code == 2, done.stderr
        assert sentence in " ".join(done.stderr.split())
        assert list(done.json) == ["error"]
        assert not (tmp_path / "out").exists()
