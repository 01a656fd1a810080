"""The source in float64: what runtimes compute, where ONNX's reference implementation computes it, too, and
where it does not."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bibench_tvm.importer.from_onnx.double import DoubleNodes, conv_transpose, evaluator
from bibench_tvm.importer.from_onnx.reference import _runner


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_conv_transpose(data: st.DataObject) -> None:
    draw = data.draw
    rank, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    strides, dilations, kernel, sizes = each(1, 3), each(1, 2), each(1, 3), each(2, 5)
    extras = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]
    begins, ends = each(0, 1), each(0, 1)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 2 * group, *sizes))
    weights = generator.standard_normal((2 * group, 3, *kernel))
    bias = generator.standard_normal(3 * group)
    function = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[rank - 1]
    given_ = (torch.from_numpy(array) for array in (x, weights, bias))
    whole = function(*given_, strides, 0, extras, group, dilations).numpy()
    extents = whole.shape[2:]
    inside = tuple(slice(b, e - end) for b, e, end in zip(begins, extents, ends, strict=True))
    made = conv_transpose(
        x, weights, bias, group=group, strides=strides, dilations=dilations,
        pads=[*begins, *ends], output_padding=extras,
    )  # fmt: skip
    np.testing.assert_allclose(made, whole[(..., *inside)], rtol=1e-12, atol=1e-12)


def in_both(operator: str, x: np.ndarray, *constants: np.ndarray | None, **attributes: Any) -> Any:
    """(the node in float64 as verifications have it, in float32 by the runtime, of the nodes)."""
    operands = [x, *constants]
    names = [f"x{p}" if operand is not None else "" for p, operand in enumerate(operands)]
    node = helper.make_node(operator, names, ["y"], **attributes)
    feeds = {name: operand for name, operand in zip(names, operands, strict=True) if operand is not None}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(operand.dtype), operand.shape)
        for name, operand in feeds.items()
    ]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    nodes = DoubleNodes(model, _runner)
    wide = [o.astype(np.float64) if o is not None and o.dtype.kind == "f" else o for o in operands]
    [y] = nodes(node, wide)
    return y, _runner(model)(["y"], feeds)[0], nodes


X = np.random.default_rng(0).standard_normal((1, 4, 6, 7)).astype(np.float32)


@pytest.mark.parametrize(
    ("operator", "constants", "attributes"),
    [
        ("MaxPool", [], {"kernel_shape": [2, 2], "pads": [0, 1, 0, 1]}),
        ("MaxPool", [], {"kernel_shape": [1, 2], "pads": [0, 1, 0, 1]}),
        (
            "Resize",
            [None, np.array([1, 1, 0.5, 0.7], "f4")],
            {"mode": "nearest", "coordinate_transformation_mode": "half_pixel"},
        ),
        ("ConvTranspose", [np.ones((4, 3, 3, 3), "f4")], {"group": 2}),
    ],
)
def test_what_the_reference_gets_wrong_is_as_in_the_runtime(
    operator: str, constants: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    y, runtime, nodes = in_both(operator, X, *constants, **attributes)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, runtime, rtol=1e-5, atol=1e-5)
    assert not nodes.rounded_in_float32


def test_what_is_no_float64_in_the_reference() -> None:
    y, runtime, nodes = in_both("MeanVarianceNormalization", X)
    np.testing.assert_array_equal(y, runtime)
    assert y.dtype == np.float64 and nodes.rounded_in_float32


def test_float64_rounds_less() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 4, 3, 3)).astype(np.float32)
    y, runtime, nodes = in_both("Conv", X, weights)
    exact = torch.conv2d(*(torch.from_numpy(a.astype(np.float64)) for a in (X, weights))).numpy()
    assert np.abs(y - exact).max() < 1e-13 < np.abs(y - runtime).max()
    assert not nodes.rounded_in_float32


def test_padding_that_is_not_spelled_out() -> None:
    """As the importer has it before it spells it out."""
    weights = np.ones((4, 3, 3, 3), np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in (("x", X), ("w", weights))
    ]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    feeds = {"x": X, "w": weights}
    [ours], [theirs] = evaluator(model).run(None, feeds), _runner(model)(["y"], feeds)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
