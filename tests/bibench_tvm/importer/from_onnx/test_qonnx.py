"""QONNX's quantizers: three networks that Brevitas 0.13.4 exported, and the formulas of each quantizer.

qonnx/*.onnx are a convolutional, a dense network and one with two-bit activations and eight-bit weights
before its binary layers, with random weights; *.npz are inputs and what `qonnx.core.onnx_exec` of qonnx 1.0.0
makes of them.
"""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from bibench_tvm import compile_model
from bibench_tvm.importer.from_onnx.qonnx import _ROUNDING, expand_quantizers
from bibench_tvm.importer.imported import ImportFailed

DOMAIN = "qonnx.custom_op.general"
BINARY = {
    "cnv": {"/3/Conv", "/7/Conv"},
    "tfc": {"/2/MatMul", "/5/Gemm", "/8/MatMul"},
    "w1a2": {"/4/Conv", "/7/Conv"},
}


@pytest.mark.parametrize("name", BINARY)
def test_a_network_of_brevitas(name: str, tmp_path: Path) -> None:
    folder = Path(__file__).parent / "qonnx"
    artifact = compile_model(folder / f"{name}.onnx", target="host", out=tmp_path, verify=2)
    kept = np.load(folder / f"{name}.npz")
    found = np.concatenate([artifact.run(x[None]) for x in kept["inputs"]])
    np.testing.assert_allclose(found, kept["outputs"], rtol=1e-5, atol=2e-6)
    manifest = artifact.manifest
    assert manifest["verification"]["passed"], manifest["verification"]["reason"]
    assert {layer["name"] for layer in manifest["layers"] if layer["binarized"]} == BINARY[name]


def model_of(op: str, inputs: list[float], opset: int = 17, **attributes: object) -> onnx.ModelProto:
    names = [f"c{i}" for i in range(len(inputs))]
    node = helper.make_node(op, ["x", *names], ["y"], domain=DOMAIN, **attributes)  # type: ignore[arg-type]
    constants = [
        helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in zip(names, inputs, strict=True)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [37]) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    expand_quantizers(model, Path("m.onnx"))
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


X = np.concatenate([np.linspace(-9, 9, 33), [-0.0, 0.0, 1e-30, -1e-30]]).astype(np.float32)
ROUND = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}


@pytest.mark.parametrize("scale", [0.75, 2.0])
def test_bipolar(scale: float) -> None:
    expected = np.where(scale * X >= 0, scale, -scale)
    np.testing.assert_array_equal(run(model_of("BipolarQuant", [scale]), X), expected.astype(np.float32))
    one_bit = model_of("Quant", [scale, 0, 1], signed=1, narrow=0, rounding_mode="ROUND")
    np.testing.assert_array_equal(run(one_bit, X), expected.astype(np.float32))


def test_every_rounding_is_tried() -> None:
    assert ROUND.keys() == _ROUNDING.keys()


KINDS = [kind for kind in itertools.product(ROUND, (0, 1), (0, 1), (1, 2, 4)) if kind[1::2] != (1, 1)]


@pytest.mark.parametrize(("mode", "signed", "narrow", "bits"), KINDS)  # one bit with a sign is bipolar
def test_quant(mode: str, signed: int, narrow: int, bits: int) -> None:
    for scale, zero in ((0.5, 0.0), (0.7, 2.0)):
        low = -(2 ** (bits - 1)) + narrow if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        inner = np.clip(X / np.float32(scale) + np.float32(zero), low, high)
        expected = (ROUND[mode](inner) - np.float32(zero)) * np.float32(scale)
        model = model_of(
            "Quant", [scale, zero, bits], signed=signed, narrow=narrow, rounding_mode=mode.lower()
        )
        np.testing.assert_array_equal(run(model, X), expected.astype(np.float32))


def test_what_is_not_known() -> None:
    with pytest.raises(ImportFailed, match="rounds by 'STOCHASTIC'; known are ROUND"):
        run(model_of("Quant", [1, 0, 2], rounding_mode="stochastic"), X)
    with pytest.raises(ImportFailed, match="ONNX opset 9; export it with opset 13 or newer"):
        run(model_of("BipolarQuant", [1], opset=9), X)
    for bits in (0, 40, float("nan"), 5000):
        with pytest.raises(ImportFailed, match="bits; it has to be 1 to 32"):
            run(model_of("Quant", [1, 0, bits]), X)
    with pytest.raises(ImportFailed, match="should have 4 inputs and one output"):
        run(model_of("Quant", [1, 0]), X)
    model = model_of("Quant", [1, 0, 2])
    del model.graph.initializer[2]
    with pytest.raises(ImportFailed, match="The bit width of the quantizer 'y' in m.onnx is computed"):
        run(model, X)
