"""What of an ONNX graph depends on initializers and shapes alone, computed by ONNX's own reference.

The folder of onnxscript 0.7 does not replace this. It leaves nodes of several outputs as they are, so that
the halves of split weights are not constants; and it makes a tensor before it compares that with its limit of
sizes: a Tile of one number takes the memory of the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.double import evaluator
from bibench_tvm.importer.from_onnx.limits import Growth
from bibench_tvm.importer.from_onnx.nodes import attributes_of, has_subgraph
from bibench_tvm.importer.from_onnx.shapes import static_shapes

_RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
_FOLDED_SIZE_LIMIT = 1 << 28  # bytes: a constant that grows beyond this stays an operator


def fold(model: onnx.ModelProto, growth: Growth) -> bool:
    """Replace nodes that depend on constants and shapes alone by initializers; True if there were any.

    Nodes and initializers that nothing needs any more are dropped.
    """
    graph = model.graph
    shapes = static_shapes(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants[""] = None  # an optional input that is left out
    aliases: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    folded: dict[str, np.ndarray] = {}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    values: list[np.ndarray] | None
    kept: list[NodeProto] = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = aliases.get(name, name)
        if node.op_type == "Concat":  # of what has no elements, nothing is put beside the others
            full = [x for x in node.input if x not in constants or constants[x].size]
            if full:
                node.input[:] = full
        empty = [name for name in node.output if name in types and 0 in shapes.get(name, ())]
        for position, name in enumerate(node.output):
            if name in empty and len(empty) < len(node.output):  # one part of a Split
                dtype = helper.tensor_dtype_to_np_dtype(types[name])
                folded[name] = constants[name] = np.zeros(shapes[name], dtype)
                node.output[position] = f"{name}_without_elements"
        if empty and len(empty) == len(node.output):
            values = [np.zeros(shapes[name], helper.tensor_dtype_to_np_dtype(types[name])) for name in empty]
        elif node.op_type == "Shape" and node.input[0] in shapes:
            values = [np.array(shapes[node.input[0]][_slice_of(node)], dtype=np.int64)]
        elif (
            node.op_type in ("Identity", "Dropout")
            and node.output[0] not in outputs
            and not any(node.output[1:])
            and len(node.input) < 3  # the third of Dropout is training_mode
        ):
            aliases[node.output[0]] = node.input[0]
            continue
        elif (
            all(name in constants for name in node.input)
            and not has_subgraph(node)
            and node.op_type not in _RANDOM
        ):
            growth.add(node, constants, model.opset_import)
            values = _evaluate(node, constants, model.opset_import)
        else:
            values = None
        if values is None:
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=False):
            if name:
                folded[name] = constants[name] = value
    needed = outputs.union(*(_names_used(node) for node in kept))
    changed = len(kept) != len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    initializers = [t for t in graph.initializer if t.name in needed]
    initializers += [
        numpy_helper.from_array(np.asarray(value), name) for name, value in folded.items() if name in needed
    ]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return changed


def _names_used(node: NodeProto) -> set[str]:
    """Inputs of the node and everything that its subgraphs mention: they see the names outside."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            names.update(*(_names_used(inner) for inner in graph.node))
            names.update(value.name for value in graph.output)
    return names


def _slice_of(node: NodeProto) -> slice:
    attributes = attributes_of(node)
    return slice(attributes.get("start"), attributes.get("end"))


def _evaluate(node: NodeProto, constants: dict[str, Any], opsets: Any) -> list[np.ndarray] | None:
    """The node's outputs, or None if the reference implementation cannot tell."""
    names = [name for name in dict.fromkeys(node.input) if name]
    try:
        inputs = [
            helper.make_tensor_value_info(name, _elem_type(constants[name]), constants[name].shape)
            for name in names
        ]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "constant", inputs, results)
        values = evaluator(helper.make_model(graph, opset_imports=opsets)).run(
            None, {name: constants[name] for name in names}
        )
    except Exception:  # whatever it cannot do is left to TVM, which names the operator if it cannot either
        return None
    if not all(isinstance(value, (np.ndarray, np.generic)) for value in values):
        return None
    if sum(np.asarray(value).nbytes for value in values) > _FOLDED_SIZE_LIMIT:
        return None
    by_name = dict(zip((name for name in node.output if name), values, strict=True))
    return [np.asarray(by_name[name]) if name else np.empty(0) for name in node.output]


def _elem_type(value: np.ndarray) -> int:
    return helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
