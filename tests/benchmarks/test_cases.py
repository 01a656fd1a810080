"""The layers that are measured, what one call of a roof counts, and the errors of the commands."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import arm, few_bits, limit, peers, prepare, shapes, tune_shipped
from benchmarks.kernels import Kernel, kernels_of
from benchmarks.shapes import Shape
from benchmarks.workers import Failed, Worker
from bibench_tvm.cli.errors import BibenchError, UsageError
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.measuring.peers.onnx_runtime import OnnxRuntime
from bibench_tvm.measuring.turns import Turns
from schedules.targets.choose import ALL


@pytest.mark.parametrize(
    ("shape", "title"),
    [
        (Shape(64, 128, 56, 28, 3), "3x3 64 to 128, 56x28"),
        (Shape(64, 128, 56, 56, 1, 2), "1x1 64 to 128, stride 2, 56x56"),
        (Shape(512, 1000, rows=8), "dense 512 to 1000, batch 8"),
    ],
)
def test_the_title_of_a_layer(shape: Shape, title: str) -> None:
    assert shape.title == title


def test_names_are_chosen_from_those_that_are_known() -> None:
    assert shapes.chosen("layer", " A, C,,", ("A", "B", "C")) == ["A", "C"]
    assert shapes.chosen("layer", "", ("A",)) == []
    with pytest.raises(UsageError, match="There is no network 'resnet19'. Did you mean resnet18"):
        shapes.chosen("network", "resnet18,resnet19", ("resnet18", "vgg_small"))


@pytest.mark.parametrize("shape", [Shape(12, 20, 5, 7, 3, 2), Shape(12, 20, rows=3)])
def test_a_binary_layer_is_the_sign_and_weights_of_one_magnitude(shape: Shape) -> None:
    """The same each time; and with channels last the same numbers in another order."""
    layer, x = shapes.binary_layer(shape), shapes.example(shape)
    weight = (layer[0].weight.detach() >= 0) * 2.0 - 1
    sign = (x >= 0) * 2.0 - 1
    functional = torch.nn.functional
    expected = functional.linear(sign, weight) if shape.rows else functional.conv2d(sign, weight, None, 2, 1)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
        torch.testing.assert_close(shapes.binary_layer(shape)(shapes.example(shape)), expected)
        if not shape.rows:
            last = shapes.channels_last(layer)(x.permute(0, 2, 3, 1))
            torch.testing.assert_close(last, expected.permute(0, 2, 3, 1))
        chain = shapes.chain(shape)(x)
        assert chain.shape == ((3, 32) if shape.rows else (1, 32, 3, 4))
        torch.testing.assert_close(shapes.chain(shape)(x), chain, rtol=0, atol=0)


def test_the_files_of_a_case_are_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_compile", lambda *_: None)
    shape, case = Shape(12, 20, 5, 7, 3, 2), tmp_path / "case"
    prepare._prepare(case, shapes.binary_layer(shape), shapes.float_layer(shape), shapes.example(shape))
    [output] = OnnxRuntime(case / "float.onnx", 1).run([np.load(case / "input.npy")])
    np.testing.assert_allclose(output, np.load(case / "expected float.npy"), rtol=1e-4, atol=1e-4)
    assert (case / "int8.onnx").exists()


def test_products_of_one_call_of_a_roof() -> None:
    """4096 steps, 8 written out, of so many chains; a vector of 64 bytes has 512 bits and 16 floats, and one
    of 32 bytes looks up 128 bits."""
    for name, binary, floats in (
        ("x86_avx512", 4096 * 8 * 20 * 512, 4096 * 8 * 20 * 16),
        ("x86_avx2", 4096 * 8 * 8 * 128, 4096 * 8 * 8 * 8),
        ("generic", 4096 * 8 * 8 * 128, 4096 * 8 * 8 * 4),
    ):
        target: Any = SimpleNamespace(kernels=next(kernels for kernels in ALL if kernels.name == name))
        assert limit.products_a_call("binary", target) == binary
        assert limit.products_a_call("float32", target) == floats


def test_a_roof_runs_here() -> None:
    for kind in limit.ROOFS:
        limit.roof(kind, resolve_target("host"))()


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_kernel_that_computes_something_else_is_no_figure(dtype: str) -> None:
    right = np.arange(4).astype(dtype)
    noise = np.full(4, 99, dtype)
    kernel = Kernel("k", "body.0", True, 2_340_000, None, (noise, right), 1, (right,))
    kernel.check([noise, right])
    with pytest.raises(BibenchError, match="The kernel of body.0, 2.3 M does not compute"):
        kernel.check([right, right + 1])
    if dtype == "float32":
        kernel.check([noise, right * np.float32(1 + 1e-6)])


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"),
    [
        (peers, ["--layers", "E"], "There is no layer 'E'"),
        (peers, ["--networks", "resnet19"], "Did you mean resnet18"),
        (peers, ["--layers", "", "--networks", ""], "There is nothing to measure"),
        (arm, ["--layers", "A,Z"], "There is no layer 'Z'"),
        (tune_shipped, ["--processors", "cortex-a54"], "There is no processor 'cortex-a54'"),
        (tune_shipped, ["--networks", "resnet18 bnm"], "Did you mean resnet18 bnn"),
    ],
)
def test_wrong_arguments_are_sentences(command: Any, arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(command.app, arguments)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr and not result.stdout


@pytest.mark.parametrize("command", [peers, arm, limit])
def test_numbers_that_cannot_be(command: Any) -> None:
    option = "--models=7" if command is arm else "--repeats=0"
    assert CliRunner().invoke(command.app, [option]).exit_code == 2


def test_a_contestant_that_fails_is_a_sentence_and_one_that_ends_is_fatal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("TVM_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    worker = Worker(1)
    try:
        with pytest.raises(Failed) as failure:
            worker.open("x", "no such opener", seconds=0.01)
        assert not failure.value.fatal
        with pytest.raises(Failed):
            worker.burst("never opened")
        worker._process.kill()
        with pytest.raises(Failed, match="Its process ended with status -9.") as failure:
            worker.burst("never opened")
        assert failure.value.fatal
    finally:
        worker.close()


class Dying:
    """A worker whose process ends in its second burst."""

    bursts, closed = 0, False

    def open(self, key: str, *_: Any, seconds: float) -> dict[str, float]:
        return {"difference": 0.0}

    def burst(self, key: str) -> tuple[float, float]:
        self.bursts += 1
        if self.bursts > 1:
            raise Failed("Its process ended with status -11.", fatal=True)
        return 1.0, 2.0

    def close(self) -> None:
        self.closed = True


def test_a_process_that_ends_takes_its_contestants_with_it_and_no_others() -> None:
    measurement, worker, living = peers.Measurement(1, 3), Dying(), Dying()
    living.bursts = -9
    workers: Any = {"tvm": worker, "torch": living}
    measurement.workers |= workers
    turns = Turns()
    for title, library in ("ours", "tvm"), ("ours alone", "tvm"), ("PyTorch", "torch"):
        turns.enter(
            title, lambda title=title, library=library: measurement.open(library, title, "contestant")
        )
    costs = turns.rounds(2)
    assert costs == {"PyTorch": [(1.0, 2.0)] * 2}
    assert turns.failed == dict.fromkeys(("ours alone", "ours"), "Its process ended with status -11.")
    assert worker.closed and measurement.workers == {"torch": living}


@pytest.mark.parametrize(
    ("kind", "sums"), [("1 bit", 1), ("2-bit activations", 2), ("2 bits", 4), ("int8", 1)]
)
def test_a_layer_of_a_few_bits_is_as_many_sums(kind: str, sums: int) -> None:
    shape = Shape(12, 20, 5, 7, 3)
    x = shapes.example(shape).permute(0, 2, 3, 1).contiguous()
    reach = few_bits.RANGE if kind == "int8" else None
    kernels = kernels_of(few_bits.layer_of(shape, kind), x, resolve_target("host"), reach)
    assert sum(kernel.binary for kernel in kernels) == sums
    assert not any("float_" in kernel.symbol for kernel in kernels)
    with torch.inference_mode():
        expected = few_bits.layer_of(shape, kind)(x)
        torch.testing.assert_close(few_bits.layer_of(shape, kind)(x), expected, rtol=0, atol=0)
