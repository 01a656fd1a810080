"""ONNX networks in other types than float32: compiled with the source's types and values, or refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from bibench_tvm import compile_model
from bibench_tvm.importer import ImportFailed, import_model

RNG = np.random.default_rng(0)
SIGNS = RNG.choice([-1.0, 1.0], (8, 16, 3, 3))
SCALES = RNG.uniform(0.05, 0.2, (8, 1, 1, 1))
STEM = RNG.normal(size=(16, 3, 3, 3))
NUMPY = {T.FLOAT: np.float32, T.FLOAT16: np.float16, T.DOUBLE: np.float64}
PADDED = {"pads": [1, 1, 1, 1]}
Node = onnx.NodeProto


def model(
    folder: Path,
    nodes: Sequence[Node],
    inputs: dict[str, tuple[int, Sequence[int]]],
    outputs: dict[str, int],
    constants: dict[str, Any] | None = None,
    opset: int = 21,
) -> Path:
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [h.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()],
        [
            value if isinstance(value, T) else nh.from_array(np.asarray(value), name)
            for name, value in (constants or {}).items()
        ],
    )
    path = folder / "model.onnx"
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(made), path)  # the outputs have to say their shapes
    return path


def stem_and_bits(dtype: int, x: str = "x") -> tuple[list[Node], dict[str, Any]]:
    """A float convolution of x and the signs of what it gives, `bits`."""
    kind = NUMPY[dtype]
    nodes = [
        h.make_node("Conv", [x, "stem"], ["h"], name="first", **PADDED),
        h.make_node("GreaterOrEqual", ["h", "zero"], ["truth"]),
        h.make_node("Where", ["truth", "one", "minus"], ["bits"]),
    ]
    numbers = {"zero": 0, "one": 1, "minus": -1}
    return nodes, {"stem": STEM.astype(kind), **{k: np.array(v, kind) for k, v in numbers.items()}}


def network(folder: Path, dtype: int, **options: Any) -> Path:
    """Stem, signs, a binary convolution, all in one type."""
    nodes, constants = stem_and_bits(dtype)
    nodes.append(h.make_node("Conv", ["bits", "w"], ["y"], name="binary", **PADDED))
    constants["w"] = (SIGNS * SCALES).astype(NUMPY[dtype])
    return model(folder, nodes, {"x": (dtype, (1, 3, 8, 8))}, {"y": dtype}, constants, **options)


def by_onnxruntime(path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    as_written = onnxruntime.SessionOptions()
    as_written.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), as_written, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)})


def check(
    path: Path, *inputs: np.ndarray, binary: int | None = None, tolerance: float = 1e-5
) -> dict[str, Any]:
    """The artifact gives what ONNX Runtime gives, in its types. Returns the manifest."""
    artifact = compile_model(path, out=path.parent / "built", verify=2)
    manifest = artifact.manifest
    assert manifest["verification"]["passed"], manifest["verification"]["reason"]
    theirs = by_onnxruntime(path, inputs)
    made = artifact.run(*inputs)
    ours = made if isinstance(made, tuple) else (made,)
    for a, b, spec in zip(ours, theirs, manifest["outputs"], strict=True):
        assert str(a.dtype) == str(b.dtype) == spec["dtype"]
        scale = np.abs(b.astype(float)).max(initial=0.01)
        assert np.abs(a.astype(float) - b.astype(float)).max(initial=0.0) <= tolerance * scale
    assert [spec["dtype"] for spec in manifest["inputs"]] == [str(x.dtype) for x in inputs]
    if binary is not None:
        assert sum(layer["binarized"] for layer in manifest["layers"]) == binary
    return manifest


def refused(path: Path, words: str, **options: Any) -> None:
    with pytest.raises(ImportFailed, match=words) as caught:
        import_model(path, **options)
    said = str(caught.value)
    assert said.endswith(".") and "\n" not in said and len(said) < 400 + len(str(path))


def normal(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


def test_float16(tmp_path: Path):
    x = normal(1, 3, 8, 8, dtype=np.float16)
    manifest = check(network(tmp_path, T.FLOAT16), x, binary=1, tolerance=5e-3)
    assert any("float16" in note and "float32" in note for note in manifest["notes"])


def test_float64_is_asked_for(tmp_path: Path):
    path = network(tmp_path, T.DOUBLE)
    refused(path, r"'x' of .* is float64.*--float32.*float32=True")
    onnxruntime_has_no_such_convolution = import_model(path, float32=True)
    x = normal(1, 3, 8, 8, dtype=np.float64)
    [expected] = onnxruntime_has_no_such_convolution.reference([x]).outputs
    artifact = compile_model(path, out=tmp_path / "built", verify=2, float32=True)
    assert artifact.manifest["verification"]["passed"]
    assert sum(layer["binarized"] for layer in artifact.manifest["layers"]) == 1
    y = artifact.run(x)
    assert y.dtype == expected.dtype == np.float64
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    [exact] = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-4)


def test_bfloat16_inputs_become_float32(tmp_path: Path):
    nodes, constants = stem_and_bits(T.FLOAT)
    constants = {name: _bfloat16(name, value) for name, value in constants.items()}
    path = model(tmp_path, nodes, {"x": (T.BFLOAT16, (1, 3, 8, 8))}, {"bits": T.BFLOAT16}, constants)
    refused(path, r"'x' of .* is bfloat16.*--float32")
    imported = import_model(path, float32=True)
    assert [spec.dtype for spec in (*imported.inputs, *imported.outputs)] == ["float32", "float32"]


def _bfloat16(name: str, value: np.ndarray) -> T:
    return h.make_tensor(name, T.BFLOAT16, value.shape, value.ravel().tolist())


IMAGE = {"x": (T.FLOAT, (1, 3, 8, 8))}


def test_half_body(tmp_path: Path):
    nodes, constants = stem_and_bits(T.FLOAT)
    nodes += [
        h.make_node("Cast", ["bits"], ["low"], to=T.FLOAT16),
        h.make_node("Conv", ["low", "w"], ["z"], **PADDED),
        h.make_node("Cast", ["z"], ["y"], to=T.FLOAT),
    ]
    constants["w"] = (SIGNS * SCALES).astype(np.float16)
    path = model(tmp_path, nodes, IMAGE, {"y": T.FLOAT}, constants)
    check(path, normal(1, 3, 8, 8), binary=1, tolerance=5e-3)


def test_half_head(tmp_path: Path):
    nodes, constants = stem_and_bits(T.FLOAT)
    nodes += [
        h.make_node("Conv", ["bits", "w"], ["y"], **PADDED),
        h.make_node("Cast", ["y"], ["low"], to=T.FLOAT16),
    ]
    constants["w"] = (SIGNS * SCALES).astype(np.float32)
    path = model(tmp_path, nodes, IMAGE, {"y": T.FLOAT, "low": T.FLOAT16}, constants)
    check(path, normal(1, 3, 8, 8), binary=1, tolerance=2e-3)


def test_bfloat16_body(tmp_path: Path):
    nodes, constants = stem_and_bits(T.FLOAT)
    low = _bfloat16("w", SIGNS * SCALES)
    body = [
        h.make_node("Cast", ["bits"], ["low"], to=T.BFLOAT16),
        h.make_node("Conv", ["low", "w"], ["z"], **PADDED),
        h.make_node("Cast", ["z"], ["y"], to=T.FLOAT),
    ]
    path = model(tmp_path, [*nodes, *body], IMAGE, {"y": T.FLOAT}, {**constants, "w": low})
    artifact = compile_model(path, out=tmp_path / "built", verify=2)
    assert artifact.manifest["verification"]["passed"]
    assert sum(layer["binarized"] for layer in artifact.manifest["layers"]) == 1
    # ONNX Runtime has no convolution of bfloat16: the same in float32 on weights of its precision.
    body = [h.make_node("Conv", ["bits", "w"], ["y"], **PADDED)]
    constants["w"] = nh.to_array(low).astype(np.float32)
    plain = model(tmp_path, [*nodes, *body], IMAGE, {"y": T.FLOAT}, constants)
    x = normal(1, 3, 8, 8)
    np.testing.assert_allclose(artifact.run(x), by_onnxruntime(plain, [x])[0], rtol=1e-4, atol=1e-5)


WEIGHTS = {
    "float16": (
        [h.make_node("Cast", ["k"], ["w"], to=T.FLOAT)],
        {"k": (SIGNS * SCALES).astype(np.float16)},
    ),
    "bfloat16": (
        [h.make_node("Cast", ["k"], ["w"], to=T.FLOAT)],
        {"k": _bfloat16("k", SIGNS * SCALES)},
    ),
    "float64": (
        [h.make_node("Cast", ["k"], ["w"], to=T.FLOAT)],
        {"k": SIGNS * SCALES},
    ),
    "int8": (
        [h.make_node("DequantizeLinear", ["k", "s"], ["w"], axis=0)],
        {"k": SIGNS.astype(np.int8), "s": SCALES.ravel().astype("f")},
    ),
    "int4": (
        [h.make_node("DequantizeLinear", ["k", "s"], ["w"], axis=0)],
        {
            "k": h.make_tensor("k", T.INT4, SIGNS.shape, SIGNS.astype(int).ravel().tolist()),
            "s": SCALES.ravel().astype("f"),
        },
    ),
    "bool": (
        [h.make_node("Where", ["k", "one", "minus"], ["v"]), h.make_node("Mul", ["v", "s"], ["w"])],
        {"k": SIGNS > 0, "s": SCALES.astype("f")},
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_kept_in_another_type(kind: str, tmp_path: Path):
    decode, kept = WEIGHTS[kind]
    nodes, constants = stem_and_bits(T.FLOAT)
    nodes += [*decode, h.make_node("Conv", ["bits", "w"], ["y"], **PADDED)]
    path = model(tmp_path, nodes, {"x": (T.FLOAT, (1, 3, 8, 8))}, {"y": T.FLOAT}, {**constants, **kept})
    assert not check(path, normal(1, 3, 8, 8), binary=1)["notes"]


@pytest.mark.parametrize("opset", [13, 18])
def test_weights_of_one_bit_before_opset_19(opset: int, tmp_path: Path):
    """When ONNX's reference implementation has no DequantizeLinear."""
    decode, kept = WEIGHTS["int8"]
    nodes, constants = stem_and_bits(T.FLOAT)
    nodes += [*decode, h.make_node("Conv", ["bits", "w"], ["y"], **PADDED)]
    shapes = {"x": (T.FLOAT, (1, 3, 8, 8))}, {"y": T.FLOAT}
    check(model(tmp_path, nodes, *shapes, {**constants, **kept}, opset), normal(1, 3, 8, 8), binary=1)


def test_pixels_in_bytes_and_classes(tmp_path: Path):
    nodes, constants = stem_and_bits(T.FLOAT, "pixels")
    nodes = [
        h.make_node("Cast", ["x"], ["pixels"], to=T.FLOAT),
        *nodes,
        h.make_node("Conv", ["bits", "w"], ["y"], **PADDED),
        h.make_node("ReduceMean", ["y", "axes"], ["scores"], keepdims=0),
        h.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
        h.make_node("Cast", ["class"], ["small"], to=T.INT32),
        h.make_node("Greater", ["scores", "zero"], ["sure"]),
    ]
    constants |= {"w": (SIGNS * SCALES).astype("f"), "axes": np.array([2, 3])}
    outputs = {"class": T.INT64, "small": T.INT32, "sure": T.BOOL, "scores": T.FLOAT}
    path = model(tmp_path, nodes, {"x": (T.UINT8, (1, 3, 8, 8))}, outputs, constants)
    check(path, np.random.default_rng(1).integers(0, 256, (1, 3, 8, 8), np.uint8), binary=1)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "uint32"])
def test_integers_are_exact(dtype: str, tmp_path: Path):
    kind = h.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        h.make_node("Add", ["x", "k"], ["sum"]),
        h.make_node("Mul", ["sum", "x"], ["product"]),
        h.make_node("Div", ["product", "three"], ["quotient"]),
        h.make_node("Greater", ["quotient", "k"], ["truth"]),
    ]
    low = 0 if dtype.startswith("u") else -9
    x = np.random.default_rng(2).integers(low, 90, (2, 40)).astype(dtype)
    k = (np.arange(40).reshape(1, 40) % 7).astype(dtype)
    outputs = {"product": kind, "quotient": kind, "truth": T.BOOL}
    path = model(tmp_path, nodes, {"x": (kind, (2, 40))}, outputs, {"k": k, "three": np.array(3, dtype)})
    product = (x + k) * x
    quotient = np.trunc(product / 3).astype(dtype)
    expected = [product, quotient, quotient > k]
    for ours, theirs in zip(compile_model(path, out=tmp_path / "built").run(x), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_large_integers(tmp_path: Path):
    nodes = [h.make_node("Add", ["x", "k"], ["y"])]
    path = model(tmp_path, nodes, {"x": (T.INT64, (4,))}, {"y": T.INT64}, {"k": np.array([1 << 40] * 4)})
    check(path, np.array([1, -(1 << 50), (1 << 53) + 1, 7]), tolerance=0)


def test_truths_and_ids(tmp_path: Path):
    nodes = [
        h.make_node("Gather", ["table", "ids"], ["rows"]),
        h.make_node("Where", ["mask", "rows", "zero"], ["y"]),
        h.make_node("Not", ["mask"], ["n"]),
    ]
    constants = {"table": normal(10, 8), "zero": np.zeros(1, "f")}
    inputs = {"ids": (T.INT64, (1, 6)), "mask": (T.BOOL, (1, 6, 1))}
    path = model(tmp_path, nodes, inputs, {"y": T.FLOAT, "n": T.BOOL}, constants)
    ids, mask = np.array([[0, 3, 9, 2, 2, 1]]), np.array([1, 0, 1, 1, 0, 0], bool).reshape(1, 6, 1)
    check(path, ids, mask, tolerance=0)


def _integer_convolution(folder: Path) -> Path:
    nodes = [h.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], name="whole", **PADDED)]
    w = RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    constants = {"w": w, "xz": np.array(3, np.uint8), "wz": np.array(0, np.int8)}
    return model(folder, nodes, {"x": (T.UINT8, (1, 3, 8, 8))}, {"y": T.INT32}, constants)


def _integer_product(folder: Path) -> Path:
    nodes = [h.make_node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"])]
    w = RNG.integers(-128, 128, (600, 4)).astype(np.int8)
    constants = {"w": w, "xz": np.array(3, np.uint8), "wz": np.array(1, np.int8)}
    return model(folder, nodes, {"x": (T.UINT8, (5, 600))}, {"y": T.INT32}, constants)


def _quantized(folder: Path) -> Path:
    names = ["x", "s", "z", "w", "t", "v", "u", "z"]
    nodes = [h.make_node("QLinearConv", names, ["y"], name="whole", **PADDED)]
    constants = {
        "w": RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8),
        **{k: np.array(v, np.float32) for k, v in {"s": 0.02, "t": 0.01, "u": 0.05}.items()},
        "z": np.array(3, np.uint8),
        "v": np.array(0, np.int8),
    }
    return model(folder, nodes, {"x": (T.UINT8, (1, 3, 8, 8))}, {"y": T.UINT8}, constants)


def test_integer_layers_are_right_or_refused(tmp_path: Path):
    x = np.random.default_rng(3).integers(0, 256, (5, 600), np.uint8)
    path = _integer_product(tmp_path)
    w = nh.to_array(onnx.load(path).graph.initializer[0])
    y = compile_model(path, out=tmp_path / "built").run(x)
    assert y.dtype == np.int32
    # ONNX Runtime's sums of two products saturate at 16 bits on a processor without VNNI.
    np.testing.assert_array_equal(y, (x.astype(int) - 3) @ (w.astype(int) - 1))
    refused(_integer_convolution(tmp_path), r"operator ConvInteger \(node 'whole'\)")
    refused(_quantized(tmp_path), r"operator QLinearConv \(node 'whole'\)")


def test_quantized_activations(tmp_path: Path):
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = {"s": np.array(0.03, np.float32), "z": np.array(5, np.int8)}
    path = model(tmp_path, nodes, {"x": (T.FLOAT, (3, 50))}, {"q": T.INT8, "y": T.FLOAT}, constants)
    check(path, 3 * normal(3, 50))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_of_few(tmp_path: Path, axis: int):
    """Places are counted from the end, too; one outside has none."""
    node = h.make_node("OneHot", ["x", "d", "v"], ["y"], axis=axis)
    constants = {"d": np.array([5]), "v": np.array([-1, 3], np.float32)}
    path = model(tmp_path, [node], {"x": (T.INT64, (2, 4))}, {"y": T.FLOAT}, constants)
    check(path, np.array([[0, 1, 4, 2], [-1, -5, 7, -6]]), tolerance=0)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_means_of_integers(tmp_path: Path, dtype: str):
    kind = h.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        h.make_node("ReduceMean", ["x", "axis"], ["rows"], keepdims=0),
        h.make_node("ReduceMean", ["x"], ["all"]),
    ]
    constants = {"axis": np.array([-1])}
    path = model(tmp_path, nodes, {"x": (kind, (2, 4))}, {"rows": kind, "all": kind}, constants)
    check(path, np.array([[-7, 2, -8, 5], [-3, -4, -9, 2]], dtype), tolerance=0)


FLOATS = {"x": (T.FLOAT, (2, 2))}


def test_constants_in_another_type(tmp_path: Path):
    nodes = [
        h.make_node("Shape", ["x"], ["s"]),
        h.make_node("Cast", ["s"], ["d"], to=T.DOUBLE),
        h.make_node("Mul", ["d", "half"], ["e"]),
        h.make_node("Cast", ["e"], ["f"], to=T.INT64),
        h.make_node("Slice", ["x", "z", "f"], ["part"]),
        h.make_node("Pow", ["part", "two"], ["square"]),
        h.make_node("Pow", ["square", "three"], ["y"]),
    ]
    numbers = {"half": np.array(0.5), "z": np.array([0, 0]), "two": np.array(2.0), "three": np.array(3)}
    check(model(tmp_path, nodes, {"x": (T.FLOAT, (4, 4))}, {"y": T.FLOAT}, numbers), normal(4, 4))
    odd = model(tmp_path, nodes, {"x": (T.FLOAT, (4, 4))}, {"y": T.FLOAT}, {**numbers, "two": np.array(2.1)})
    refused(odd, "'two' of .* is float64.*--float32")
    assert import_model(odd, float32=True).outputs[0].dtype == "float32"


def test_casts_by_way_of_float64_are_exact(tmp_path: Path):
    nodes = [
        h.make_node("Cast", ["x"], ["d"], to=T.DOUBLE),
        h.make_node("Cast", ["d"], ["f"], to=T.FLOAT),
        h.make_node("Cast", ["wide"], ["w"], to=T.FLOAT),
        h.make_node("Add", ["f", "w"], ["y"]),
        h.make_node("Cast", ["y"], ["z"], to=T.DOUBLE),
    ]
    inputs = {"x": (T.INT32, (3, 4)), "wide": (T.DOUBLE, (3, 4))}
    path = model(tmp_path, nodes, inputs, {"y": T.FLOAT, "z": T.DOUBLE})
    check(path, np.arange(12, dtype=np.int32).reshape(3, 4), normal(3, 4, dtype=np.float64) / 3, tolerance=0)


def test_what_is_not_compiled(tmp_path: Path):
    identity = [h.make_node("Identity", ["x"], ["y"])]
    for dtype, name in ((T.STRING, "string"), (T.COMPLEX64, "complex64"), (T.FLOAT8E4M3FN, "float8e4m3fn")):
        path = model(tmp_path, identity, {"x": (dtype, (2, 2))}, {"y": dtype})
        refused(path, rf"'x' of .* is {name}.*cast it")
    cast = [h.make_node("Cast", ["x"], ["low"], to=T.INT4), h.make_node("Cast", ["low"], ["y"], to=T.FLOAT)]
    refused(model(tmp_path, cast, FLOATS, {"y": T.FLOAT}), "'low' of .* is int4")
    wide = [h.make_node("Cast", ["x"], ["much"], to=T.DOUBLE), h.make_node("Mul", ["much", "much"], ["y"])]
    refused(model(tmp_path, wide, FLOATS, {"y": T.DOUBLE}), "'much' of .* is float64.*--float32")
