"""ONNX's sequences of tensors, each of which is known by its place, as the tensors alone.

PyTorch's exporters write `chunk` and `tensor_split` as `SplitToSequence`, whose parts `SequenceAt` takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.nodes import attributes_of, has_subgraph, name_of
from bibench_tvm.importer.from_onnx.shapes import static_shapes


def take_known_parts(model: onnx.ModelProto) -> bool:
    """Whether there were any. A sequence that something else reads stays where it is."""
    graph = model.graph
    if any(map(has_subgraph, graph.node)):
        return False
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = static_shapes(model)
    kept_whole = {value.name for value in graph.output}
    kept_whole |= {name for node in graph.node if not _takes_parts(node, constants) for name in node.input}
    parts: dict[str, list[str]] = {}  # sequence -> its tensors
    nodes: list[NodeProto] = []
    for node in graph.node:
        name = node.output[0]
        if node.op_type == "SequenceConstruct" and name not in kept_whole:
            parts[name] = list(node.input)
        elif (
            node.op_type == "SplitToSequence"
            and name not in kept_whole
            and _is_known(node, constants, shapes)
        ):
            made = _split(graph, node, constants, shapes)
            parts[name] = [part.output[0] for part in made]
            nodes += made
        elif node.input and node.input[0] in parts:
            nodes.append(_read(node, parts[node.input[0]], constants))
        else:
            nodes.append(node)
    if parts:
        del graph.node[:]
        graph.node.extend(nodes)
        tensors = [value for value in graph.value_info if value.name not in parts]
        del graph.value_info[:]
        graph.value_info.extend(tensors)
    return bool(parts)


def _takes_parts(node: NodeProto, constants: Mapping[str, np.ndarray]) -> bool:
    if node.op_type == "ConcatFromSequence":
        return not attributes_of(node).get("new_axis", 0)
    return node.op_type == "SequenceAt" and node.input[1] in constants


def _is_known(
    node: NodeProto, constants: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    return node.input[0] in shapes and all(name in constants for name in node.input[1:] if name)


def _split(
    graph: onnx.GraphProto,
    node: NodeProto,
    constants: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[NodeProto]:
    """A node for each part, in order."""
    x, given = (*node.input, "")[:2]
    attributes, name, called = attributes_of(node), node.output[0], name_of(node)
    axis = attributes.get("axis", 0) % len(shapes[x])
    extent = shapes[x][axis]

    def integer(value: int | list[int], what: str) -> str:
        made = numpy_helper.from_array(np.array(value, np.int64), f"{name}/{what}")
        graph.initializer.append(made)
        return str(made.name)

    if not given and not attributes.get("keepdims", 1):
        return [
            helper.make_node(
                "Gather", [x, integer(i, f"place {i}")], [f"{name}/{i}"], f"{called}/{i}", axis=axis
            )
            for i in range(extent)
        ]
    widths = constants[given] if given else np.array(1)
    starts = np.cumsum(widths) - widths if widths.ndim else np.arange(0, extent, int(widths))
    cuts = [*starts.tolist(), extent]
    bounds = [integer([cut], f"bound {i}") for i, cut in enumerate(cuts)]
    along = integer([axis], "axis")
    return [
        helper.make_node("Slice", [x, *pair, along], [f"{name}/{i}"], f"{called}/{i}")
        for i, pair in enumerate(itertools.pairwise(bounds))
    ]


def _read(node: NodeProto, parts: list[str], constants: Mapping[str, np.ndarray]) -> NodeProto:
    if node.op_type == "SequenceAt":
        part = parts[int(constants[node.input[1]])]
        return helper.make_node("Identity", [part], list(node.output), name_of(node))
    axis = attributes_of(node)["axis"]
    return helper.make_node("Concat", parts, list(node.output), name_of(node), axis=axis)
