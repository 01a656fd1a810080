"""--float-layers fp16, from the outside."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relay_passes.kernels import float_layer
from rpc import emulated
from rpc.emulation import c_network, qemu
from tests.bibench_tvm.compiling.c_library import compiled, network, same, samples

HALF = {"vector.0": 33 * 19, "vector.3": 5 * 21}  # layer -> its weights


def test_verified_and_listed_and_the_same_in_c(tmp_path: Path) -> None:
    artifact = compiled("bireal", tmp_path, target="rpi5", float_layers="fp16", verify=2)
    manifest = artifact.manifest
    layers = {layer["name"]: layer for layer in manifest["layers"]}
    assert {name for name, layer in layers.items() if layer["dtype"] == "float16"} == set(HALF)
    assert {name: layers[name]["weight_bytes"] for name in HALF} == {n: 2 * w for n, w in HALF.items()}
    assert layers["image.0"]["dtype"] == "float32" and "Winograd" in layers["image.0"]["notes"]
    assert manifest["float_layers"] == {"mode": "fp16"} and "fullfp16" in manifest["target"]["features"]
    found = manifest["verification"]
    assert found["passed"] and found["integers_exact"], found["reason"]
    [told] = [sentence for sentence in found["not_compared"] if "8,192 times" in sentence]
    assert "reach output 1, output 2, vector.2: there" in told  # and not those of the image
    assert 0 < found["max_abs_error"] < 0.05

    emulator, sysroot, _ = emulated.prepared("run_model.c")
    compiler = qemu.compiler("aarch64-linux-gnu-gcc", ["aarch64-linux-gnu.2.28"])
    command = [emulator, "-cpu", "cortex-a76", "-L", str(sysroot)]
    given, library = samples(artifact), {"LD_LIBRARY_PATH": str(sysroot / "lib")}
    in_c = c_network.run(network(artifact), given, compiler, command, library, 60)
    expected = emulated.run(artifact.folder / "model.so", given, cpu="cortex-a76", timeout_s=60)
    assert all(same(a, tuple(b)) for a, b in zip(in_c, expected, strict=True))


def test_a_wrong_weight_is_more_than_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = float_layer.lay_out

    def wrong(weights: np.ndarray, *more: object) -> np.ndarray:
        flipped = weights.copy()
        flipped[0] *= -1
        return honest(flipped, *more)

    monkeypatch.setattr(float_layer, "lay_out", wrong)
    artifact = compiled("bireal", tmp_path, target="rpi5", float_layers="fp16", verify=1)
    assert artifact.manifest["verification"]["passed"] is False


@pytest.mark.parametrize("target", ["arm_cpu", "rpi4b", "armv7", "host"])
def test_a_core_without_it_is_refused(
    command: Callable, small_file: Path, tmp_path: Path, target: str
) -> None:
    asked = ["--target", target, "--float-layers", "fp16", "--out", tmp_path / "out"]
    done = command("compile", small_file, *asked)
    assert done.code == 2 and not (tmp_path / "out").exists()
    told = " ".join(done.stderr.split())
    assert "has no arithmetic in float16" in told and "rpi5" in told and "rpi3b+" not in told


def test_from_the_shell(command: Callable, small_file: Path, tmp_path: Path) -> None:
    asked = ["--target", "rpi5", "--float-layers", "fp16", "--out", tmp_path / "out", "--json"]
    done = command("compile", small_file, *asked)
    assert done.code == 0, done.stderr
    assert done.json["float_layers"] == {"mode": "fp16"}
    assert {layer["dtype"] for layer in done.json["layers"]} == {"binary", "float16", "float32"}
    assert "In float16: " in " ".join(done.stderr.split())


def test_samples_alone_have_no_use(small_file: Path, command: Callable, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 4, 8, 8), "f4"))
    asked = ["--target", "rpi5", "--float-layers", "fp16", "--samples", tmp_path / "x.npy"]
    done = command("compile", small_file, *asked, "--out", tmp_path / "out")
    assert done.code == 2 and "--verify" in done.stderr
