"""An ONNX `If` whose condition is known is the branch that it takes.

PyTorch's exporter by TorchScript writes one for each `squeeze` of an axis whose length it does not know, and
the shapes of the inputs then tell.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.nodes import attributes_of, has_subgraph


def take_known_branches(model: onnx.ModelProto) -> bool:
    """Whether there were any. A branch with branches of its own stays where it is."""
    graph = model.graph
    conditions = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.BOOL
    }
    nodes: list[NodeProto] = []
    taken = False
    for node in graph.node:
        condition = conditions.get(node.input[0]) if node.op_type == "If" else None
        if condition is None or condition.size != 1:
            nodes.append(node)
            continue
        branch = attributes_of(node).get("then_branch" if condition.reshape(()) else "else_branch")
        if branch is None or not _can_be_spliced(branch, node):
            nodes.append(node)
            continue
        nodes += _spliced(branch, node, graph)
        taken = True
    if taken:
        del graph.node[:]
        graph.node.extend(nodes)
    return taken


def _can_be_spliced(branch: onnx.GraphProto, node: NodeProto) -> bool:
    nested = branch.sparse_initializer or any(has_subgraph(inner) for inner in branch.node)
    return not nested and len(branch.output) == len(node.output) and all(node.output)


def _spliced(branch: onnx.GraphProto, node: NodeProto, graph: onnx.GraphProto) -> list[NodeProto]:
    """The branch's nodes, under names that the graph around it has not; its initializers are the graph's."""
    own = {name for inner in branch.node for name in inner.output if name}
    own |= {tensor.name for tensor in branch.initializer}
    names = {name: f"{node.output[0]}.{name}" for name in own}
    for tensor in branch.initializer:
        copy = onnx.TensorProto.FromString(tensor.SerializeToString())
        copy.name = names[tensor.name]
        graph.initializer.append(copy)
    made = []
    for inner in branch.node:
        copied = NodeProto.FromString(inner.SerializeToString())
        for side in (copied.input, copied.output):
            side[:] = [names.get(name, name) for name in side]
        made.append(copied)
    made += [
        helper.make_node("Identity", [names.get(value.name, value.name)], [name])
        for value, name in zip(branch.output, node.output, strict=True)
    ]
    return made
