"""A verification notices what is wrong, and one that could not run is never one that passed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bibench_tvm import compile_model, compiler, verify
from bibench_tvm.importer import Imported
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


def test_what_has_no_emulator(small: torch.nn.Module, tmp_path: Path) -> None:
    compiled = compile_model(small, torch.zeros(1, 4, 8, 8), target="armv7", verify=1, out=tmp_path)
    record = compiled.manifest["verification"]
    assert record["passed"] is None and record["reason"].startswith("armv7 cannot be verified here")


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
    run = emulated.run

    def crash(library: Path, samples: list, **options: object) -> list:
        if len(samples) > 1:
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


def test_float_layers_that_compute_something_else(
    small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no sign flipped the outputs have to be the source's, not only have the same top-1."""
    honest = compiler.import_model

    def shifted(*arguments: object, **options: object) -> Imported:
        imported = honest(*arguments, **options)

        def reference(values: list[np.ndarray]) -> object:
            run = imported.reference(values)
            return dataclasses.replace(run, outputs=[run.outputs[0] + 0.5])

        return dataclasses.replace(imported, reference=reference)

    monkeypatch.setattr(compiler, "import_model", shifted)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=3).manifest["verification"]
    assert record["agreement"] == 1 and record["integers_exact"] is True
    assert record["passed"] is False
    assert (
        "On 3 of 3 samples the outputs differ by up to 0.5, though every sign is the same" in record["reason"]
    )


def test_wrong_integers(small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sum in thousands that is off by two is found and its layer named."""
    run = verify.run_here

    def wrong(library: Path, samples: list) -> object:
        for result in run(library, samples):
            if len(result) > 1:
                sums = result[-1].copy()
                sums[0, 3, 5, 7] += 2
                result = [*result[:-1], sums]
            yield result

    monkeypatch.setattr(verify, "run_here", wrong)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=3).manifest["verification"]
    assert record["integers_exact"] is False and record["passed"] is False
    assert record["layers"][0]["wrong_sums"] == 3
    assert record["reason"] == "These layers do not compute what they should: 2."


def test_flipped_signs_are_counted(
    small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = compiler.import_model

    def flipped(*arguments: object, **options: object) -> Imported:
        imported = honest(*arguments, **options)

        def reference(values: list[np.ndarray]) -> object:
            run = imported.reference(values)
            signs = run.layer_inputs["2"][0].copy()
            signs[0, 0, 0, :3] *= -1
            return dataclasses.replace(run, layer_inputs={**run.layer_inputs, "2": (signs,)})

        return dataclasses.replace(imported, reference=reference)

    monkeypatch.setattr(compiler, "import_model", flipped)
    record = compile_model(small, torch.zeros(1, 4, 8, 8), out=tmp_path, verify=2).manifest["verification"]
    assert (record["flipped_signs"], record["signs"]) == (6, 2 * 16 * 64)
    assert record["passed"] is True


def test_infinities_and_nan_agree_with_themselves() -> None:
    values = np.array([1.0, np.inf, -np.inf, np.nan], np.float32)
    assert verify._largest(values, values) == 0
    assert verify._largest(values, np.zeros(4, np.float32)) == np.finfo(np.float64).max
    assert verify._largest(np.array([True]), np.array([False])) == 1
