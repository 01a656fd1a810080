"""A verification notices what is wrong, and one that could not run is never one that passed."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from bibench_tvm import compile_model
from bibench_tvm.compiling import runners
from bibench_tvm.compiling.layer_check import LayerCheck
from bibench_tvm.compiling.rounding import largest_difference
from bibench_tvm.importer import Imported, ReferenceRun, import_model, source
from rpc import emulated


def test_without_an_emulator(command: Callable, tmp_path: Path) -> None:
    options = ["--target", "arm_cpu", "--verify", 2, "--json", "--out", tmp_path]
    done = command("compile", *options, PATH="")
    assert done.code == 0, done.stderr
    record = done.json["verification"]
    assert record["passed"] is None and record["backend"] is None and record["agreement"] is None
    assert record["samples"] == 0
    assert "arm_cpu cannot be verified here: qemu-aarch64 is not installed. Type: " in record["reason"]
    assert "Not verified. arm_cpu cannot be verified here" in done.stderr
    assert "agrees" not in done.stderr


def test_what_has_no_emulator(
    small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    options = {"target": "cortex-m4", "standalone": True, "verify": 1}
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, **options).manifest["verification"]
    assert record["passed"] is None and record["reason"].startswith("cortex-m4 cannot be verified here")


def test_not_asked_for(small: torch.nn.Module, tmp_path: Path) -> None:
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path).manifest["verification"]
    assert record["passed"] is None and "--verify" in record["reason"]


def test_inputs_that_do_not_fit(small: torch.nn.Module, tmp_path: Path) -> None:
    for samples in (np.zeros((5, 4, 8, 9), np.float32), np.zeros((1, 4, 8, 8), np.float32)):
        with pytest.raises(ValueError, match=r"2 runs of the network take at least \(2, 4, 8, 8\)"):
            compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=2, samples=samples)
    with pytest.raises(ValueError, match="cannot be less than 0"):
        compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=-1)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_is_a_failure(
    invoke: Callable, board: None, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact is there to be looked at, its manifest says what happened, and the exit code is 1."""
    run, batches = emulated.run, []

    def crash(library: Path, samples: list, **options: object) -> list:
        batches.append(samples)
        if len(batches) > 2:  # after the first of the artifact, and of its probe
            raise emulated.EmulationFailed("The emulated program died of SIGILL.")
        return run(library, samples, **options)

    monkeypatch.setattr(emulated, "run", crash)
    options = ["--target", "arm_cpu", "--verify", 4, "--json", "--out", tmp_path]
    done = invoke("compile", small_file, *options)
    assert done.code == 1
    record = done.json["verification"]
    assert record["passed"] is False and record["samples"] == 1
    assert (
        record["reason"] == "It broke off in the batch after sample 1: The emulated program died of SIGILL."
    )
    assert "The verification failed." in done.stderr


class Another:
    """A source that computes something else than the network that was compiled."""

    def __init__(self, honest: Any, change: Callable[[ReferenceRun], ReferenceRun]):
        self.honest, self.change = honest, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    def __call__(self, *args: Any, **options: Any) -> ReferenceRun:
        return self.change(self.honest(*args, **options))


@pytest.fixture
def another_source(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(change: Callable[[ReferenceRun], ReferenceRun]) -> None:
        honest = source.import_model

        def changed(*arguments: object, **options: object) -> Imported:
            imported = honest(*arguments, **options)
            return dataclasses.replace(imported, reference=Another(imported.reference, change))

        monkeypatch.setattr(source, "import_model", changed)

    return use


def test_float_layers_that_compute_something_else(
    small: torch.nn.Module, tmp_path: Path, another_source: Callable
) -> None:
    """The outputs have to be the source's, not only have the same top-1."""
    another_source(lambda run: dataclasses.replace(run, outputs=[run.outputs[0] + 0.5]))
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=3).manifest["verification"]
    assert record["agreement"] == 1 and record["integers_exact"] is True
    assert record["passed"] is False and record["outputs_off"] == 3
    assert (
        "On 3 of 3 samples the outputs differ from the source's by up to 0.5, which is more than rounding"
        in record["reason"]
    )


@pytest.mark.parametrize("change", [lambda y: y.astype(np.float64), lambda y: y[0]])
def test_dtypes_and_shapes_are_compared(
    change: Callable, small: torch.nn.Module, tmp_path: Path, another_source: Callable
) -> None:
    another_source(lambda run: dataclasses.replace(run, outputs=[change(run.outputs[0])]))
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=1).manifest["verification"]
    assert record["passed"] is False
    assert record["reason"].startswith("The artifact's output 0 is float32 (1, 5), and the source's")


def test_wrong_integers(small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sum in thousands that is off by two is found and its layer named."""
    run = runners.run_here

    def wrong(library: Path, samples: list) -> object:
        for result in run(library, samples):
            if len(result) > 1:
                sums = result[-1].copy()
                sums[0, 3, 5, 7] += 2
                result = [*result[:-1], sums]
            yield result

    monkeypatch.setattr(runners, "run_here", wrong)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=3).manifest["verification"]
    assert record["integers_exact"] is False and record["passed"] is False
    assert record["layers"][0]["wrong_sums"] == 3
    layer = record["layers"][0]
    assert layer["reason"].startswith(f"3 of its {layer['sums']:,} sums are wrong")
    assert record["reason"] == f"These layers do not compute what they should: 2 ({layer['reason']})."


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sums": 9, "wrong_sums": 1}, "1 of its 9 sums are wrong"),
        ({"wrong_bits": 2}, "2 bits that it wrote or read are wrong"),
        ({"max_abs_error": 0.99993896484375}, "what it wrote is off by 1 of its largest value"),
        ({"max_abs_error": math.nan}, "what it wrote is off by nan of its largest value"),
        ({"flipped_signs": 3, "excused_flips": 2}, "1 signs that it read are not the source's"),
        ({"reason": "The source has no layer of that name"}, "The source has no layer of that name"),
        ({"flipped_signs": 3, "excused_flips": 3, "max_abs_error": 1e-6}, ""),
    ],
)
def test_a_layer_that_failed_says_why(wrong: dict[str, Any], said: str) -> None:
    check = LayerCheck("layer", **wrong)
    assert check.record().reason == said and check.passed == (not said)


def test_wrong_bits_behind_right_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thresholded sum that is packed as the other bit, in the one of two layers that packs its output."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(4, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 16, 3)]
    layers += [
        torch.nn.BatchNorm2d(16),
        torch.nn.Conv2d(16, 8, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 5),
    ]
    two = trainers.binarize(torch.nn.Sequential(*layers), "bnn").eval()
    run = runners.run_here

    def wrong(library: Path, samples: list) -> object:
        for result in run(library, samples):
            if len(result) > 1:
                bits = result[2].copy()  # behind the output and what the first binary layer read
                bits[0, 1, 2, 0] ^= 1
                result = [*result[:2], bits, *result[3:]]
            yield result

    monkeypatch.setattr(runners, "run_here", wrong)
    record = compile_model(two, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=3).manifest["verification"]
    assert [(layer["wrong_sums"], layer["wrong_bits"]) for layer in record["layers"]] == [(0, 3), (0, 0)]
    assert record["integers_exact"] is False and record["passed"] is False


def test_signs_that_rounding_does_not_explain(
    small: torch.nn.Module, tmp_path: Path, another_source: Callable
) -> None:
    def flip(run: ReferenceRun) -> ReferenceRun:
        signs = run.layer_inputs["2"][0].copy()
        signs[0, 0, 0, :3] *= -1
        return dataclasses.replace(run, layer_inputs={**run.layer_inputs, "2": (signs,)})

    another_source(flip)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=2).manifest["verification"]
    assert (record["flipped_signs"], record["signs"]) == (6, 2 * 16 * 64)
    assert (record["excused_flips"], record["unexcused_flips"]) == (0, 6)
    assert record["passed"] is False and "6 signs are not the source's" in record["reason"]


def test_sums_of_another_number_are_wrong_every_one(
    small: torch.nn.Module, tmp_path: Path, another_source: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_source(lambda run: run)
    monkeypatch.setattr(Another, "sums", lambda self, *of: self.honest.sums(*of)[..., 1:], raising=False)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=1).manifest["verification"]
    assert record["passed"] is False and record["integers_exact"] is False
    assert record["layers"][0]["wrong_sums"] == record["layers"][0]["sums"] > 0


class SignOfInput(torch.nn.Module):
    """torch.sign of the input plus 1, which is 0 by accident only where the input is of floats."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.where(torch.randn(8, 4, 3, 3) > 0, 1.0, -1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(torch.sign(x + 1), self.weight)


@pytest.mark.parametrize("whole", [False, True])
def test_zeros_that_a_note_calls_accidents_and_no_rounding_made(whole: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    samples = (x.round() if whole else x).numpy()
    artifact = compile_model(SignOfInput(), x[:1], out=tmp_path, verify=2, samples=samples)
    record = artifact.manifest["verification"]
    assert "only an accident" in artifact.manifest["layers"][0]["notes"]
    assert record["passed"] is not whole and (record["signs_at_zero"] > 0) == whole
    assert ("of a 0 that no rounding made" in record["reason"]) == whole


def test_zeros_of_the_source_that_no_note_speaks_of(
    small: torch.nn.Module, tmp_path: Path, another_source: Callable
) -> None:
    """They are no flips, and a failure all the same."""

    def zero(run: ReferenceRun) -> ReferenceRun:
        signs = run.layer_inputs["2"][0].copy()
        signs[0, 0][signs[0, 0] > 0] = 0
        return dataclasses.replace(run, layer_inputs={**run.layer_inputs, "2": (signs,)})

    another_source(zero)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=2).manifest["verification"]
    assert record["flipped_signs"] == 0 < record["signs_at_zero"]
    assert (
        record["passed"] is False and "2: The source has exact zeros where it has signs" in record["reason"]
    )


def test_a_layer_that_the_source_does_not_have(
    small: torch.nn.Module, tmp_path: Path, another_source: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silence where a binary layer could not be compared."""
    another_source(lambda run: run)
    monkeypatch.setattr(Another, "layers", {}, raising=False)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=1).manifest["verification"]
    assert record["passed"] is False
    assert record["reason"] == "2: The source has no layer of that name."


class Layouts(torch.nn.Module):
    """Binary layers of every layout: behind a padding, in one dimension, products of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.padded = torch.nn.Conv2d(8, 8, 3, bias=False)
        self.row = torch.nn.Conv1d(8, 8, 3, padding=1, bias=False)
        for layer in (self.padded, self.row):
            layer.weight.data = sign(layer.weight.data) * 0.3

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.padded(torch.nn.functional.pad(sign(self.first(x)), (1, 0, 2, 1)))
        x = self.row(sign(x - 0.01).flatten(2))
        product = sign(x - 0.02).transpose(1, 2) @ sign(2 * x - 0.5)
        return product, torch.nn.functional.linear(sign(product[0] - 0.3), sign(product[0] + 0.1))


def sign(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


@pytest.mark.parametrize("onnx", [False, True])
def test_layouts_of_the_source(onnx: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    example = torch.zeros(1, 3, 8, 8)
    source: Any = Layouts().eval()
    if onnx:
        torch.onnx.export(source, (example,), tmp_path / "m.onnx", dynamo=False)
        source = tmp_path / "m.onnx"
    manifest = compile_model(source, None if onnx else example, out=tmp_path / "out", verify=2).manifest
    record = manifest["verification"]
    assert record["passed"] is True, record["reason"]
    assert [layer["binarized"] for layer in manifest["layers"]] == [False, *[True] * 4]
    assert [check["signs"] for check in record["layers"]] == [2 * n for n in (288, 280, 560, 2450)]
    assert [check["sums"] for check in record["layers"]] == [2 * n for n in (280, 280, 1225, 1225)]


def test_infinities_and_nan_agree_with_themselves() -> None:
    values = np.array([1.0, np.inf, -np.inf, np.nan], np.float32)
    assert largest_difference(values, values) == 0
    assert largest_difference(values, np.zeros(4, np.float32)) == np.finfo(np.float64).max
    assert largest_difference(np.array([True]), np.array([False])) == 1


def test_what_is_put_in_place_may_lie_otherwise_in_memory() -> None:
    """Trainings leave convolutions in channels last, and exported, a flattening is a view of such memory."""

    class Rows(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).clamp(-1, 1).permute(0, 2, 3, 1).flatten(1)

    model = Rows(4, 6, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(1, 4, 4, 4)
    reference: Any = import_model(model.eval(), example_inputs=(x,)).reference
    (clamp,) = [node.name for node in reference.core.graph.nodes if "clamp" in node.name]
    array = np.arange(96, dtype=np.float32).reshape(1, 6, 4, 4)
    found = reference([x.numpy()], replaced={clamp: array}).outputs[0]
    np.testing.assert_array_equal(found, array.transpose(0, 2, 3, 1).reshape(1, 96))


@pytest.mark.parametrize("source", ["torch", "onnx"])
@pytest.mark.parametrize(("beta", "noise"), [(0.0, 4e-6), (0.25, 3e-6), (0.0, 9e-6), (0.25, 9e-6)])
def test_weights_that_are_nearly_two_numbers_are_compared_as_they_were_read(
    source: str, beta: float, noise: float, tmp_path: Path
) -> None:
    """As an export leaves them that has added `h - s + s` up; the notes say by how much."""

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            signs = torch.where(torch.rand(9, 24, 1, 1) < 0.5, -1.0, 1.0)
            moved = signs * (1 + torch.empty(9, 24, 1, 1).uniform_(-noise, noise))
            self.weight = nn.Parameter(moved + beta)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(torch.where(x >= 0, 1.0, -1.0), self.weight)

    model, x = Layers().eval(), torch.randn(1, 24, 5, 5)
    if source == "onnx":
        torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=False, opset_version=17)
        artifact = compile_model(tmp_path / "m.onnx", out=tmp_path / "out", verify=8)
    else:
        artifact = compile_model(model, x, out=tmp_path / "out", verify=8)
    [layer] = artifact.manifest["layers"]
    assert layer["binarized"] and "rounding in the source moves" in layer["notes"]
    assert artifact.manifest["verification"]["passed"] is True
