"""A plain ONNX graph: constants computed, known branches taken, automatic padding spelled out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.branches import take_known_branches
from bibench_tvm.importer.from_onnx.fold import fold
from bibench_tvm.importer.from_onnx.limits import Growth, refuse_large_tensors
from bibench_tvm.importer.from_onnx.nodes import LAYERS, attributes_of, name_of
from bibench_tvm.importer.from_onnx.sequences import take_known_parts
from bibench_tvm.importer.from_onnx.shapes import static_shapes
from bibench_tvm.importer.imported import ImportFailed


def make_plain(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Fold constants and shapes until nothing changes, then spell out what is implicit."""
    growth = Growth(model, path)
    while True:
        model = _infer(model)
        taken = take_known_branches(model)
        taken |= take_known_parts(model)
        if not fold(model, growth) and not taken:
            break
    shapes = static_shapes(model)
    refuse_large_tensors(shapes, path)
    for node in model.graph.node:
        _spell_out_padding(node, shapes)
        if node.op_type == "Resize":  # of opset 11, in which an operand is left out by having no elements
            node.input[1:] = ["" if shapes.get(name) == (0,) else name for name in node.input[1:]]
    return model


def refuse_infinite_operands(model: onnx.ModelProto, path: Path) -> None:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in (*LAYERS, "BatchNormalization"):
            for name in node.input:
                if name in constants and not np.isfinite(numpy_helper.to_array(constants[name])).all():
                    raise ImportFailed(
                        f"The operand {name!r} of {node.op_type} (node {name_of(node)!r}) in {path} has "
                        "values that are NaN or infinite; the training diverged, or the file is damaged."
                    )


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    # Not in strict mode: that refuses MeanVarianceNormalization, whose definition onnx itself writes badly.
    # Shapes that do not fit together stay unknown here, and TVM says where.
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _spell_out_padding(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Turn `auto_pad` and `output_shape` into `pads` (all begins, then all ends)."""
    if node.op_type not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"):
        return
    attributes = attributes_of(node)
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    wanted = attributes.get("output_shape")  # of ConvTranspose; TVM ignores it
    if (mode == "NOTSET" and wanted is None) or node.input[0] not in shapes:
        return
    sizes = shapes[node.input[0]][2:]
    wanted = wanted[-len(sizes) :] if wanted else [None] * len(sizes)
    kernel = attributes.get("kernel_shape") or shapes[node.input[1]][2:]
    strides = attributes.get("strides") or [1] * len(sizes)
    dilations = attributes.get("dilations") or [1] * len(sizes)
    extras = list(attributes.get("output_padding") or [0] * len(sizes))
    begins: list[int] = []
    ends: list[int] = []
    for size, window, stride, dilation, extra, out in zip(
        sizes, kernel, strides, dilations, tuple(extras), wanted, strict=True
    ):
        reach = (window - 1) * dilation + 1
        if out is not None:
            total = (size - 1) * stride + extra + reach - out
            extras[len(begins)] = extra - min(total, 0)  # where there is too little, the end is filled up
            total = max(total, 0)
        elif mode == "VALID":
            total = 0
        elif node.op_type == "ConvTranspose":
            total = max(reach + extra - stride, 0)  # the output is size * stride
        else:
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        first = large if mode == "SAME_LOWER" or (out is not None and mode != "SAME_UPPER") else small
        begins.append(first)
        ends.append(total - first)
    kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads", "output_shape", "output_padding")]
    if any(extras):
        kept.append(helper.make_attribute("output_padding", extras))
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", [*begins, *ends])])
