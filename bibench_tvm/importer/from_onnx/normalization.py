"""Repairs of ONNX's normalizations and Dropout. See `repairs.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from bibench_tvm.importer.from_onnx.expressions import number_of, shape_of


def dropout(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    if len(inputs) > 2 and inputs[2] is not None and number_of(inputs[2]) != 0:
        raise NotImplementedError("training_mode: a compiled network draws no random numbers.")
    for name in ("ratio", "seed", "is_test"):
        attrs.get(name)  # they mean nothing in inference
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return inputs[0]
    return relax.Tuple([inputs[0], relax.op.ones(shape_of(inputs[0]), "bool")])


def batch_norm(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
    if attrs.get("training_mode", 0):
        raise NotImplementedError("training_mode=1: export the network in its eval mode.")
    if attrs["tvm_custom"]["num_outputs"] > 1:
        raise NotImplementedError("statistics as outputs: export the network in its eval mode.")
    attrs.get("is_test"), attrs.get("consumed_inputs")


def layer_norm(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """With the mean and the inverse deviation that ONNX has as further outputs."""
    axis = attrs.get("axis", -1) % len(shape_of(inputs[0]))
    outputs = attrs["tvm_custom"]["num_outputs"]
    x, scale, bias = (*inputs, None)[:3]
    axes = list(range(axis, len(shape_of(x))))
    if outputs == 1 and axis > 0 and shape_of(scale) == shape_of(x)[axis:]:
        return None
    mean = relax.op.mean(x, axes, keepdims=True)
    moved = relax.op.subtract(x, mean)
    variance = relax.op.mean(relax.op.multiply(moved, moved), axes, keepdims=True)
    inverse = relax.op.rsqrt(relax.op.add(variance, relax.const(np.float32(attrs.get("epsilon", 1e-5)))))
    made = relax.op.multiply(relax.op.multiply(moved, inverse), scale)
    if bias is not None:
        made = relax.op.add(made, bias)
    return relax.Tuple([made, mean, inverse][:outputs]) if outputs > 1 else made


def rms_norm(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    x, scale = inputs
    axis = attrs.get("axis", -1) % len(shape_of(x))
    if axis > 0 and shape_of(scale) == shape_of(x)[axis:]:
        return None
    axes = list(range(axis, len(shape_of(x))))
    square = relax.op.mean(relax.op.multiply(x, x), axes, keepdims=True)
    inverse = relax.op.rsqrt(relax.op.add(square, relax.const(np.float32(attrs.get("epsilon", 1e-5)))))
    return relax.op.multiply(relax.op.multiply(x, inverse), scale)
