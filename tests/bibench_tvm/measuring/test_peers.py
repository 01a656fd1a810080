"""A layer on its own, in ours, TVM's and ONNX Runtime's kernels: each computes what numpy does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import tvm
from tvm import relax

import trainers
from bibench_tvm.compiling.build import build
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.measuring.peers import bitserial, onnx_runtime
from bibench_tvm.measuring.peers.standalone import Standalone
from schedules.geometry import Convolution

PLAIN = Convolution(1, 9, 7, 32, 24, (3, 3), (1, 1), (1, 1, 1, 1))
UNEVEN = Convolution(2, 9, 8, 24, 40, (3, 2), (2, 1), (0, 1, 2, 0))
GROUPED = Convolution(1, 8, 8, 16, 32, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 2)
ROWS = Convolution(1, 1, 5, 50, 33)


def planar(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def run(library: Path, *inputs: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    return machine["main"](*map(tvm.runtime.tensor, inputs)).numpy()


@pytest.mark.parametrize("binarized", [True, False])
@pytest.mark.parametrize("conv", [PLAIN, UNEVEN, GROUPED, ROWS])
def test_ours_and_onnx_runtime(conv: Convolution, binarized: bool, tmp_path: Path) -> None:
    layer = Standalone(conv, conv is ROWS, binarized)
    imported, x = layer.imported(), layer.shaped(layer.x)
    lowered, _ = build(imported, resolve_target("host"), tmp_path / "layer.so", lambda task: None)
    assert [(found.binarized, found.geometry) for found in lowered.layers] == [(binarized, conv)]
    expected = imported.reference([x]).outputs[0]
    np.testing.assert_allclose(run(tmp_path / "layer.so", x), expected, atol=0 if binarized else 1e-4)

    onnx_runtime.write_layer(tmp_path / "layer.onnx", conv, layer.weights, linear=layer.linear)
    floats = layer.expected(layer.x)
    given, right = (layer.shaped(a) if layer.linear else planar(a) for a in (layer.x, floats))
    files = tmp_path / "layer.onnx", tmp_path / "int8.onnx"
    onnx_runtime.quantize(*files, [[given]], reduce_range=onnx_runtime.saturates_here())
    for file, tolerance in {"layer.onnx": 1e-4, "int8.onnx": 0.1 * np.abs(right).max()}.items():
        (found,) = onnx_runtime.OnnxRuntime(tmp_path / file, 1).run([given])
        np.testing.assert_allclose(found, right, atol=tolerance)


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", ["avx2"], True),
        ("x86_64", ["avx2", "avx512f", "avx512bw", "avx512vpopcntdq"], True),
        ("x86_64", ["avx2", "avx512f", "avx512vnni"], False),
        ("x86_64", ["avx2", "avxvnni"], False),
        ("aarch64", ["neon"], False),
        ("unknown", [], False),
    ],
)
def test_where_int8_saturates(machine: str, features: list[str], expected: bool) -> None:
    assert onnx_runtime.saturates(machine, features) is expected


@pytest.mark.parametrize("reduced", [False, True])
def test_a_reduced_range_leaves_no_pair_of_products_to_saturate(reduced: bool, tmp_path: Path) -> None:
    layer, file = Standalone(PLAIN, False, True), tmp_path / "layer.onnx"
    onnx_runtime.write_layer(file, PLAIN, layer.weights, linear=False)
    onnx_runtime.quantize(file, tmp_path / "int8.onnx", [[planar(layer.x)]], reduce_range=reduced)
    stored = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    [weights] = [array for array in stored if array.shape == (24, 32, 3, 3)]
    largest = 2 * 255 * int(np.abs(weights.astype(int)).max())
    assert weights.dtype == np.int8 and (largest < 2**15) is reduced


@pytest.mark.parametrize("arch", ["bert_tiny4@small", "pointnet_vanilla@small"])
def test_int8_of_networks_that_are_no_stack_of_convolutions(arch: str, tmp_path: Path) -> None:
    """Of several inputs and of integers, and of reductions whose shapes have to be inferred."""
    torch.manual_seed(0)
    network = trainers.create_model(arch)
    examples = network.example_inputs
    given = [x.numpy() for x in (examples.values() if isinstance(examples, dict) else examples)]
    files = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    expected = onnx_runtime.export(network, given, files[0])
    onnx_runtime.quantize(*files, [given], reduce_range=onnx_runtime.saturates_here())
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(files[1]).graph.node)
    found = onnx_runtime.OnnxRuntime(files[1], 1).run(given)[0]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("conv", [PLAIN, UNEVEN, ROWS])
def test_topi(conv: Convolution, tmp_path: Path) -> None:
    layer = Standalone(conv, conv is ROWS, True)
    executable = tvm.compile(bitserial.bitserial_module(conv), target="llvm")
    executable.export_library(str(tmp_path / "layer.so"))
    kernel = (layer.weights.transpose(1, 2, 3, 0) > 0).astype("uint8")
    found = run(tmp_path / "layer.so", layer.x, np.ascontiguousarray(kernel))
    np.testing.assert_array_equal(found, layer.expected((layer.x >= 0).astype("float32")))


def test_what_topi_has_no_kernel_for() -> None:
    assert bitserial.unsupported(PLAIN) is None
    assert bitserial.unsupported(GROUPED) == "it has no groups"
    assert bitserial.unsupported(Convolution(1, 8, 8, 8, 8, (3, 3), dilation=(2, 2))) == "it has no dilation"
