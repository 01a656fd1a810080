"""What is put where a mask is true, `x[mask] = 1`, as `Where`.

PyTorch's exporter writes the places out, NonZero and ScatterND. How many there are depends on the values; the
result does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.nodes import attributes_of, has_subgraph, name_of
from bibench_tvm.importer.from_onnx.shapes import static_shapes

_SPREAD = ("Reshape", "Expand", "Identity", "Squeeze", "Unsqueeze", "Flatten")


def spell_out_masks(model: onnx.ModelProto) -> None:
    """In place, before the source is copied as its own reference. Where one number is put; others stay."""
    graph = model.graph
    if not any(node.op_type == "NonZero" for node in graph.node) or any(map(has_subgraph, graph.node)):
        return
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes, described = static_shapes(inferred), [*inferred.graph.input, *inferred.graph.value_info]
    truths = {v.name for v in described if v.type.tensor_type.elem_type == onnx.TensorProto.BOOL}
    producers = {name: node for node in graph.node for name in node.output if name}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        found = _mask_and_number(node, producers, constants, shapes)
        if found is None or found[0] not in truths:
            continue
        mask, number = found
        scalar = numpy_helper.from_array(numpy_helper.to_array(number).reshape(()), f"{node.output[0]}/put")
        graph.initializer.append(scalar)
        where = helper.make_node(
            "Where", [mask, scalar.name, node.input[0]], list(node.output), name=name_of(node)
        )
        node.CopyFrom(where)
    _drop_unread(model)


def _mask_and_number(
    node: NodeProto,
    producers: Mapping[str, NodeProto],
    constants: Mapping[str, onnx.TensorProto],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[str, onnx.TensorProto] | None:
    if node.op_type != "ScatterND" or attributes_of(node).get("reduction", b"none") != b"none":
        return None
    turned = producers.get(node.input[1])
    if turned is None or turned.op_type != "Transpose" or attributes_of(turned).get("perm", [1, 0]) != [1, 0]:
        return None
    places = producers.get(turned.input[0])
    if places is None or places.op_type != "NonZero":
        return None
    mask, data = places.input[0], node.input[0]
    if mask not in shapes or shapes[mask] != shapes.get(data):
        return None
    put = node.input[2]
    while (made := producers.get(put)) is not None and made.op_type in _SPREAD:
        put = made.input[0]
    number = constants.get(put)
    if made is not None and made.op_type == "Constant":
        number = attributes_of(made).get("value")
    if number is None or numpy_helper.to_array(number).size != 1:
        return None
    return mask, number


def _drop_unread(model: onnx.ModelProto) -> None:
    """What nothing reads any more: the count of the places, and what was made of it."""
    graph = model.graph
    kept = list(graph.node)
    while True:
        read = Counter(name for node in kept for name in node.input)
        read.update(value.name for value in graph.output)
        fewer = [node for node in kept if any(name in read for name in node.output)]
        if len(fewer) == len(kept):
            break
        kept = fewer
    del graph.node[:]
    graph.node.extend(kept)
