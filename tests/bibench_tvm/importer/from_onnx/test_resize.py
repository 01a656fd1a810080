"""Resize of signals, images and volumes, by every mode, as onnxruntime computes it."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bibench_tvm import compile_model
from bibench_tvm.importer.imported import ImportFailed

SCALES = (0.3, 0.5, 0.6, 1.0, 1.3, 1.5, 1.7, 2.0, 2.5, 2.9, 3.0)


def resizing(shape: list[int], wanted: list[Any], **attrs: str) -> onnx.ModelProto:
    """wanted: sizes where they are integers, else scales."""
    are_sizes = all(isinstance(number, int) for number in wanted)
    values = np.array(wanted, np.int64 if are_sizes else np.float32)
    inputs = ["x", "", "", "v"] if are_sizes else ["x", "", "v"]
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], **attrs)],
        "resizing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(values, "v")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def ours_and_theirs(model: onnx.ModelProto, folder: Any) -> tuple[np.ndarray, np.ndarray]:
    onnx.save(model, folder / "resize.onnx")
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    artifact = compile_model(folder / "resize.onnx", out=folder / "made")
    [theirs] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    return artifact.run(x), theirs


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[Any], dict[str, str]]:
    rank = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(4, 9), min_size=rank, max_size=rank))
    by_size = draw(st.booleans())
    number: st.SearchStrategy[Any] = st.integers(1, 16) if by_size else st.sampled_from(SCALES)
    wanted = draw(st.lists(number, min_size=rank, max_size=rank))
    modes = ["nearest", "linear", "cubic"] if rank == 2 else ["nearest", "linear"]  # onnxruntime's
    attrs = {"mode": draw(st.sampled_from(modes))}
    places = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    attrs["coordinate_transformation_mode"] = draw(st.sampled_from(places))
    if attrs["mode"] == "nearest":
        roundings = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attrs["nearest_mode"] = draw(st.sampled_from(roundings))
    return [1, 3, *sizes], [*((1, 3) if by_size else (1.0, 1.0)), *wanted], attrs


@given(case=cases())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_as_onnxruntime(
    case: tuple[list[int], list[Any], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape, wanted, attrs = case
    model = resizing(shape, wanted, **attrs)
    try:
        ours, theirs = ours_and_theirs(model, tmp_path_factory.mktemp("resize"))
    except ImportFailed as refused:
        assert "in which runtimes differ" in str(refused)
        return
    if attrs["mode"] == "nearest":
        assert np.array_equal(ours, theirs)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("scales", [(0.6, 0.7), (0.5, 2.0), (1.7, 0.6), (2.0, 3.0)], ids=str)
def test_of_opset_10(scales: tuple[float, float], tmp_path: Any) -> None:
    """To fewer elements it takes the next, to more the one before."""
    model = resizing([1, 3, 9, 11], [1.0, 1.0, *scales], mode="nearest")
    del model.graph.node[0].input[1]
    model.opset_import[0].version = 10
    ours, theirs = ours_and_theirs(model, tmp_path)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("wanted", [[1, 3, 18, 15], [1.0, 1.0, 2.0, 3.0]], ids=["sizes", "scales"])
def test_of_opset_11(mode: str, wanted: list[Any], tmp_path: Any) -> None:
    """What is left out has no elements, as PyTorch's exporter writes it."""
    model = resizing([1, 3, 9, 5], wanted, mode=mode)
    inputs = model.graph.node[0].input
    inputs[1:-1] = ["nothing"] * len(inputs[1:-1])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "nothing"))
    model.opset_import[0].version = 11
    ours, theirs = ours_and_theirs(model, tmp_path)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("wanted", [[1, 3, 15], [1.0, 1.0, 2.5], [1.0, 1.0, 2.0], [1.0, 1.0, 0.5]])
def test_signals(mode: str, wanted: list[Any], tmp_path: Any) -> None:
    ours, theirs = ours_and_theirs(resizing([1, 3, 6], wanted, mode=mode), tmp_path)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "wanted", "coordinates", "said"),
    [
        ([1, 3, 1], [1.0, 1.0, 0.5], "half_pixel", "a size of 0"),
        ([1, 3, 3], [1.0, 1.0, 0.5], "pytorch_half_pixel", "less than two elements"),
        ([1, 3, 4], [1.0, 1.0, 2.0], "tf_crop_and_resize", "anything but images and volumes"),
    ],
)
def test_what_is_refused(
    shape: list[int], wanted: list[Any], coordinates: str, said: str, tmp_path: Any
) -> None:
    model = resizing(shape, wanted, mode="linear", coordinate_transformation_mode=coordinates)
    onnx.save(model, tmp_path / "resize.onnx")
    with pytest.raises(ImportFailed, match=said):
        compile_model(tmp_path / "resize.onnx", out=tmp_path / "made")


def test_scales_that_change_nothing(tmp_path: Any) -> None:
    """A size that stays what it is: onnxruntime and PyTorch copy, whatever the scale."""
    ours, theirs = ours_and_theirs(resizing([1, 3, 2, 7], [1.0, 1.0, 1.3, 1.0], mode="cubic"), tmp_path)
    assert np.array_equal(ours, theirs)
