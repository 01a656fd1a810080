"""ONNX networks, exported and built by hand, compiled for this machine and for Arm, against ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("algorithm", ["bnn", "xnor", "reactnet", "recu"])
def test_exported_networks(
    algorithm: str,
    dynamo: bool,
    network: Callable,
    images: np.ndarray,
    assert_verified: Callable,
    tmp_path: Path,
) -> None:
    model = network("resnet20", algorithm)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, 32, 32),), path, dynamo=dynamo, verbose=False)
    manifest = assert_verified(path, samples=images, runs=1)
    layers = manifest["layers"]
    assert (len(layers), sum(layer["binarized"] for layer in layers)) == (22, 20)
    assert manifest["model"] == "model" and manifest["algorithm"] is None


def conv(
    name: str, source: str, weights: np.ndarray, generator: np.random.Generator, **attributes: Any
) -> tuple[list, list]:
    """Sign, Conv with weights +-alpha of each output channel, BatchNormalization with odd scales."""
    out = weights.shape[0]
    alpha = generator.uniform(0.1, 2, (out, 1, 1, 1))
    constants = {
        "w": np.where(weights >= 0, alpha, -alpha),
        "scale": generator.choice([-1.5, 0.0, 0.7], out),
        "bias": generator.normal(size=out),
        "mean": generator.normal(size=out),
        "variance": generator.uniform(0.5, 2, out),
    }
    initializers = [
        numpy_helper.from_array(value.astype(np.float32), f"{name}.{key}") for key, value in constants.items()
    ]
    names = [initializer.name for initializer in initializers]
    nodes = [
        helper.make_node("Sign", [source], [f"{name}.sign"], name=f"{name}_sign"),
        helper.make_node("Conv", [f"{name}.sign", names[0]], [f"{name}.y"], name=name, **attributes),
        helper.make_node("BatchNormalization", [f"{name}.y", *names[1:]], [name], name=f"{name}_bn"),
    ]
    return nodes, initializers


def save(path: Path, shape: tuple[int, ...], layers: list[tuple[list, list]]) -> Path:
    nodes = [node for layer in layers for node in layer[0]]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [None] * len(shape))
    initializers = [initializer for layer in layers for initializer in layer[1]]
    graph = helper.make_graph(nodes, "by hand", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("channels", "out", "batch", "groups", "attributes"),
    [
        (3, 20, 1, 1, dict(pads=[1, 1, 1, 1])),
        (20, 96, 4, 1, dict(strides=[2, 2], pads=[0, 1, 2, 1])),
        (96, 130, 1, 1, dict(dilations=[2, 2], pads=[2, 2, 2, 2])),
        (130, 20, 4, 1, dict()),
        (130, 130, 1, 130, dict(strides=[2, 1], pads=[1, 0, 1, 2])),
        (20, 20, 4, 20, dict(dilations=[2, 2], pads=[3, 1, 0, 2])),
        (96, 20, 1, 4, dict(strides=[2, 2], dilations=[2, 1], pads=[1, 1, 1, 1])),
        (130, 26, 4, 13, dict(pads=[0, 0, 1, 1])),
        (20, 40, 1, 20, dict(pads=[1, 1, 1, 1])),
        (3, 3, 1, 3, dict(auto_pad="SAME_UPPER", strides=[2, 2])),
    ],
)
def test_built_by_hand(
    channels: int,
    out: int,
    batch: int,
    groups: int,
    attributes: dict,
    assert_verified: Callable,
    tmp_path: Path,
) -> None:
    """Two such layers in a row; of small integers, sums are often exactly at a threshold."""
    generator = np.random.default_rng(channels + out)
    first = generator.normal(size=(out, channels // groups, 3, 3))
    second = generator.normal(size=(96, out, 1, 1))
    path = save(
        tmp_path / "model.onnx",
        (batch, channels, 11, 9),
        [
            conv("first", "x", first, generator, group=groups, kernel_shape=[3, 3], **attributes),
            conv("second", "first", second, generator),
        ],
    )
    # sign(0) is +1 here and 0 in ONNX: the compiled network is compared away from 0.
    inputs = generator.choice([-2, -1, 1, 2], (2 * batch, channels, 11, 9)).astype(np.float32)
    manifest = assert_verified(path, samples=inputs)
    assert [(layer["name"], layer["binarized"]) for layer in manifest["layers"]] == [
        ("first", True),
        ("second", True),
    ]
    assert manifest["verification"]["flipped_signs"] == 0


def test_the_sign_of_zero_is_zero_where_pixels_are(tmp_path: Path) -> None:
    from bibench_tvm import compile_model

    generator = np.random.default_rng(0)
    weights = generator.normal(size=(20, 96, 3, 3))
    path = save(tmp_path / "model.onnx", (1, 96, 8, 8), [conv("only", "x", weights, generator)])
    samples = generator.choice([-1.0, 0.0, 1.0], (2, 96, 8, 8)).astype(np.float32)
    manifest = compile_model(path, out=tmp_path / "out", verify=2, samples=samples).manifest
    assert manifest["layers"][0]["binarized"] is True
    assert "three values" in manifest["layers"][0]["notes"]
    record = manifest["verification"]
    assert record["passed"] is True, record["reason"]
    assert record["flipped_signs"] == record["signs_at_zero"] == 0


def test_matrix_products(assert_verified: Callable, tmp_path: Path) -> None:
    """Gemm and MatMul over a batch of 4, with 130 inputs."""
    generator = np.random.default_rng(0)
    alpha = 0.25 * generator.choice([-1, 1], (130, 96))
    beta = generator.uniform(0.5, 1, (20, 1)) * generator.choice([-1, 1], (20, 96))
    layers = [
        (
            [
                helper.make_node("Sign", ["x"], ["s"], name="s"),
                helper.make_node("MatMul", ["s", "a"], ["h"], name="product"),
                helper.make_node("Add", ["h", "shift"], ["i"], name="away_from_zero"),
                helper.make_node("Sign", ["i"], ["t"], name="t"),
                helper.make_node("Gemm", ["t", "b", "c"], ["y"], name="dense", transB=1),
            ],
            [
                numpy_helper.from_array(alpha.astype(np.float32), "a"),
                numpy_helper.from_array(beta.astype(np.float32), "b"),
                numpy_helper.from_array(generator.normal(size=20).astype(np.float32), "c"),
                numpy_helper.from_array(np.array([0.1], np.float32), "shift"),
            ],
        )
    ]
    manifest = assert_verified(save(tmp_path / "model.onnx", (4, 130), layers))
    assert [(layer["name"], layer["binarized"]) for layer in manifest["layers"]] == [
        ("product", True),
        ("dense", True),
    ]
