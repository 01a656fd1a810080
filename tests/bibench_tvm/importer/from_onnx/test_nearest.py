"""Which elements a Resize to the nearest takes, beside onnxruntime."""

import numpy as np
import onnx
import onnxruntime
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.nearest import COORDINATES, ROUNDINGS, exact_elements, nearest_elements

SCALES = st.one_of(
    st.floats(0.1, 4.0),
    st.integers(1, 40).map(lambda tenths: tenths / 10),
    st.integers(1, 9).map(lambda n: 1 / n),
)


def of_onnxruntime(size: int, values: np.ndarray, coordinates: str, rounding: str) -> np.ndarray:
    x = np.repeat(np.arange(size, dtype=np.float32), 2).reshape(1, 1, size, 2)
    inputs = ["x", "", "", "v"] if values.dtype == np.int64 else ["x", "", "v"]
    attrs = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], mode="nearest", **attrs)],
        "nearest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(values, "v")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    [y] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    return y[0, 0, :, 0].astype(np.int64)


@given(
    size=st.integers(1, 40),
    scale=SCALES,
    coordinates=st.sampled_from(COORDINATES),
    rounding=st.sampled_from(ROUNDINGS),
)
@example(size=9, scale=0.6, coordinates="asymmetric", rounding="floor")  # 3 / 0.6
@example(size=30, scale=1.3, coordinates="half_pixel", rounding="round_prefer_floor")  # 19.5 / 1.3 - 0.5
@settings(max_examples=300, deadline=None)
def test_scales(size: int, scale: float, coordinates: str, rounding: str) -> None:
    values = np.array([1, 1, scale, 1], np.float32)
    out = int(np.floor(np.float32(size) * values[2]))
    assume(out >= 1 and out != size)  # else onnxruntime copies
    theirs = of_onnxruntime(size, values, coordinates, rounding)
    assert np.array_equal(nearest_elements(size, out, values[2], coordinates, rounding), theirs)


@given(
    size=st.integers(1, 40),
    out=st.integers(1, 80),
    coordinates=st.sampled_from(COORDINATES),
    rounding=st.sampled_from(ROUNDINGS),
)
@settings(max_examples=300, deadline=None)
def test_sizes(size: int, out: int, coordinates: str, rounding: str) -> None:
    assume(out != size)
    theirs = of_onnxruntime(size, np.array([1, 1, out, 2]), coordinates, rounding)
    scale = np.float32(out) / np.float32(size)
    assert np.array_equal(nearest_elements(size, out, scale, coordinates, rounding), theirs)


def test_without_rounding() -> None:
    """Of 6 elements 3 are 0, 2 and 4, and a middle is a middle."""
    assert exact_elements(6, 3, "asymmetric", "floor").tolist() == [0, 2, 4]
    assert exact_elements(6, 3, "half_pixel", "round_prefer_floor").tolist() == [0, 2, 4]
    assert exact_elements(6, 3, "half_pixel", "round_prefer_ceil").tolist() == [1, 3, 5]
    assert exact_elements(3, 6, "align_corners", "ceil").tolist() == [0, 1, 1, 2, 2, 2]
