"""The call that people make: `load(build).run(x)`. Right in several threads, after a fork, and soon back."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from torch import nn

from bibench_tvm import BibenchError, compile_model, load
from bibench_tvm.artifact.artifact import Artifact, load_vm

SHAPE = (1, 4, 8, 8)
# How much longer than the network a call may take; on a machine that does nothing else it is about 10 us.
MOST_S = 60e-6

TWO_THREADS = """
import multiprocessing, os, signal, sys, threading
import numpy as np
from bibench_tvm import load
artifact = load(sys.argv[1], threads=2)
x = np.random.default_rng(0).standard_normal((8, 1, 4, 8, 8), np.float32)
expected = [artifact.run(each) for each in x]
wrong = []
def run(i):
    wrong.extend(i for _ in range(50) if not np.array_equal(artifact.run(x[i]), expected[i]))
threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
assert not wrong, wrong
before = len(os.listdir("/proc/self/task"))
for i in range(8):
    thread = threading.Thread(target=run, args=(i,)); thread.start(); thread.join()
# The last one may not be quite gone. TVM would leave its pools behind.
assert len(os.listdir("/proc/self/task")) < before + 4
child = os.fork()
if child == 0:
    signal.alarm(60)
    run(0)
    sys.exit(len(wrong))  # through all that a process does when it exits
assert os.waitpid(child, 0)[1] == 0
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(np.array_equal(*pair) for pair in zip(pool.map_async(artifact.run, x).get(60), expected))
"""


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE, np.float32)


def linear(weight: float) -> nn.Module:
    layer = nn.Linear(8, 4, bias=False)
    nn.init.constant_(layer.weight, weight)
    return layer.eval()


def test_eight_threads(artifact: Artifact) -> None:
    inputs = np.random.default_rng(1).standard_normal((8, *SHAPE), np.float32)
    expected = [artifact.run(x) for x in inputs]
    fresh = load(artifact.folder)
    wrong: list[int] = []

    def run(i: int) -> None:
        wrong.extend(i for _ in range(1000) if not np.array_equal(fresh.run(inputs[i]), expected[i]))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_threads_for_a_network_in_eight_threads_and_after_a_fork(artifact: Artifact) -> None:
    code = [sys.executable, "-c", TWO_THREADS, str(artifact.folder)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


def test_compiled_again_into_the_same_folder(tmp_path: Path) -> None:
    x = np.ones((1, 8), np.float32)
    artifacts = []
    for weight in (1, 5, 3):
        artifacts.append(compile_model(linear(weight), torch.ones(1, 8), out=tmp_path, verify=1))
        artifacts.append(load(tmp_path))
        assert artifacts[-1].manifest["verification"]["passed"] is True
        artifacts[-1].run(x)
    assert [artifact.run(x)[0, 0] for artifact in artifacts] == [8, 8, 40, 40, 24, 24]


def test_a_library_that_is_changed_after_load(artifact: Artifact, x: np.ndarray, tmp_path: Path) -> None:
    compile_model(linear(1), torch.ones(1, 8), out=tmp_path)
    loaded = load(tmp_path)
    [library] = tmp_path.glob("model-*.so")
    library.write_bytes(b"nonsense")
    assert loaded.run(np.ones((1, 8), np.float32))[0, 0] == 8


def test_libraries_that_nobody_needs_are_closed(artifact: Artifact, x: np.ndarray) -> None:
    def opened() -> int:
        return sum("memfd:model.so" in line for line in open("/proc/self/maps"))

    before = opened()
    results = [load(artifact.folder).run(x) for _ in range(5)]
    assert opened() <= before
    assert all(np.array_equal(result, results[0]) for result in results)


def test_inputs_however_they_lie_in_memory(artifact: Artifact, x: np.ndarray) -> None:
    expected = artifact.run(x)
    whole = np.zeros(x.size + 64, np.float32)
    start = -whole.ctypes.data % 64 // 4
    for shift in (0, 1, 5):
        placed = whole[start + shift :][: x.size].reshape(SHAPE)
        placed[:] = x
        np.testing.assert_array_equal(artifact.run(placed), expected)
    read_only = x.copy()
    read_only.flags.writeable = False
    for other in (read_only, np.asfortranarray(x), np.repeat(x, 2, axis=3)[..., ::2], x.tolist):
        given = np.array(other(), np.float32) if callable(other) else other
        np.testing.assert_array_equal(artifact.run(given), expected)


def test_outputs_are_written_where_the_caller_says(artifact: Artifact, x: np.ndarray) -> None:
    expected = artifact.run(x)
    out = np.zeros_like(expected)
    assert artifact.run(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    strided = np.zeros((3, 10), np.float32)[:, ::2]
    artifact.run(np.concatenate([x, 0 * x, x]), out=[strided])
    np.testing.assert_array_equal(strided[[0, 2]], np.concatenate([expected, expected]))
    read_only = out.copy()
    read_only.flags.writeable = False
    for wrong, sentence in [
        (np.zeros((1, 6), np.float32), r"is float32 \(1, 5\), and out has float32 \(1, 6\)"),
        (np.zeros((1, 5)), r"is float32 \(1, 5\), and out has float64 \(1, 5\)"),
        (strided, r"out has float32 \(3, 5\)"),
        ([out, out], "has 1 outputs, but out has 2 arrays"),
        ([[0.0] * 5], "and out has list"),
        (read_only, "cannot be written to"),
    ]:
        with pytest.raises(BibenchError, match=sentence):
            artifact.run(x, out=wrong)


class Returns(nn.Module):
    """What has no layer, and outputs that are one tensor: each has to have memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("constant", torch.arange(6.0).reshape(2, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        return x, x.reshape(6), x, y, y.reshape(3, 2), y, self.constant, x[0, 0], x > 0


def test_outputs_share_no_memory(tmp_path: Path) -> None:
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    artifact = compile_model(Returns().eval(), torch.ones(2, 3), out=tmp_path)
    with torch.no_grad():
        expected = [y.numpy().copy() for y in Returns()(torch.from_numpy(x))]
    aligned = np.from_dlpack(tvm.runtime.tensor(x))
    for given in (x, aligned):
        outputs = artifact.run(given)
        for i, output in enumerate(outputs):
            np.testing.assert_array_equal(output, expected[i])
            assert not np.shares_memory(output, given)
            output[...] = 77
        np.testing.assert_array_equal(given, expected[0])
    outputs = artifact.run(x)
    for output, right in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output, right)


@pytest.mark.parametrize(
    ("network", "shape", "sentence"),
    [
        (lambda x: x[:0], (2, 3), r"The output .* has shape \(0, 3\), with no element in it"),
        (lambda x: (x, x[:, 1:1]), (2, 3), r"The output .* has shape \(2, 0\), with no element in it"),
        (lambda x: x + 1, (0, 3), r"The input .* has shape \(0, 3\), with no element in it"),
        (lambda x: (), (2, 3), "The network has no output"),
    ],
)
def test_networks_of_nothing(network, shape: tuple[int, ...], sentence: str, tmp_path: Path) -> None:
    class Module(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return network(x)

    with pytest.raises(BibenchError, match=sentence):
        compile_model(Module().eval(), torch.ones(shape), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_call_takes_little_more_than_the_network(artifact: Artifact, x: np.ndarray) -> None:
    """In turns, and by the fastest of each: what else the machine does makes neither faster."""
    main, tensor = load_vm(artifact.folder / "model.so")["main"], tvm.runtime.tensor(x)
    best = {"network": 1.0, "call": 1.0}
    for _ in range(500):
        for name, call in (("network", lambda: main(tensor)), ("call", lambda: artifact.run(x))):
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    assert best["call"] - best["network"] < MOST_S


def test_an_input_that_has_gradients(artifact: Artifact, x: np.ndarray) -> None:
    np.testing.assert_array_equal(artifact.run(torch.from_numpy(x).requires_grad_()), artifact.run(x))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threads": "2"}, "The number of threads should be a whole number, and is '2'"),
        ({"threads": 1.5}, "The number of threads should be a whole number, and is 1.5"),
        ({"threads": True}, "The number of threads should be a whole number, and is True"),
    ],
)
def test_load_refuses_what_is_no_number(artifact: Artifact, options: dict, sentence: str) -> None:
    with pytest.raises(BibenchError, match=sentence):
        load(artifact.folder, **options)


@pytest.mark.parametrize("folder", [None, 3, ""])
def test_load_refuses_what_is_no_path(folder: object) -> None:
    with pytest.raises(BibenchError, match=f"The folder of an artifact should be a path, and is {folder!r}"):
        load(folder)


@pytest.mark.parametrize("given", [[[1.0], [1.0, 2.0]], torch.zeros(1, 4, 8, 8, device="meta")])
def test_run_refuses_what_is_no_array(artifact: Artifact, given: object) -> None:
    with pytest.raises(BibenchError, match="An input is no array"):
        artifact.run(given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": 5}, "There is no target 5."),
        ({"target": None}, "There is no target None."),
        ({"verify": "3"}, "The number of runs to verify on should be a whole number, and is '3'"),
        ({"verify": True}, "The number of runs to verify on should be a whole number, and is True"),
        ({"out": None}, "The folder out should be a path, and is None"),
        ({"out": ""}, "The folder out should be a path, and is ''"),
        ({"tuned": 3}, "The folder tuned should be a path, and is 3"),
        ({"dump_ir": 3}, "The folder dump_ir should be a path, and is 3"),
        ({"float_layers": 3}, "There is no arithmetic of float layers 3."),
    ],
)
def test_compile_refuses_what_is_of_another_kind(tmp_path: Path, options: dict, sentence: str) -> None:
    with pytest.raises(BibenchError, match=sentence):
        compile_model(linear(1), torch.ones(1, 8), **{"out": tmp_path / "out", **options})
    assert list(tmp_path.iterdir()) == []
