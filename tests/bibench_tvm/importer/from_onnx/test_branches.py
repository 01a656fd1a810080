"""Branches of ONNX whose condition is known."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bibench_tvm import compile_model
from bibench_tvm.importer.from_onnx.branches import take_known_branches


def branching(condition: str, length: int) -> onnx.ModelProto:
    """Squeezes an axis if its length is 1, as PyTorch's exporter writes it; both branches name their inner
    tensors alike. condition: the name of it, computed from the shape or an input."""
    value = helper.make_tensor_value_info
    axes = numpy_helper.from_array(np.array([1]), "axes")
    squeeze = helper.make_graph(
        [
            helper.make_node("Abs", ["double"], ["inner"]),
            helper.make_node("Squeeze", ["inner", "axes"], ["result"]),
        ],
        "squeeze",
        [],
        [value("result", TensorProto.FLOAT, [2, 3])],
        [axes],
    )
    leave = helper.make_graph(
        [helper.make_node("Identity", ["double"], ["inner"])],
        "leave",
        [],
        [value("inner", TensorProto.FLOAT, [2, length, 3])],
    )
    nodes = [
        helper.make_node("Add", ["x", "x"], ["double"]),
        helper.make_node("Shape", ["double"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Equal", ["length", "one"], ["is_one"]),
        helper.make_node("If", [condition], ["chosen"], then_branch=squeeze, else_branch=leave),
        helper.make_node("Neg", ["chosen"], ["inner"]),
    ]
    inputs = [value("x", TensorProto.FLOAT, [2, length, 3])]
    if condition == "asked":
        inputs.append(value("asked", TensorProto.BOOL, []))
    one = numpy_helper.from_array(np.array(1), "one")
    graph = helper.make_graph(
        nodes,
        "branching",
        inputs,
        [value("inner", TensorProto.FLOAT, [2, 3] if length == 1 else [2, length, 3])],
        [one],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("length", [1, 4])
def test_the_one_that_is_taken_is_compiled(length, tmp_path):
    onnx.save(branching("is_one", length), tmp_path / "model.onnx")
    x = np.random.default_rng(0).normal(size=(2, length, 3)).astype("float32")
    right = -np.abs(2 * x)[:, 0] if length == 1 else -2 * x
    found = compile_model(tmp_path / "model.onnx", out=tmp_path / "made", verify=2).run(x)
    np.testing.assert_array_equal(found, right)


def test_a_condition_that_is_not_known_stays():
    model = branching("asked", 1)
    assert not take_known_branches(model)
    assert "If" in [node.op_type for node in model.graph.node]
