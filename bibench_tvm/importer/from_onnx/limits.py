"""What of an ONNX file would fill the memory: functions within functions, constants made of shapes, weights
in other files. Each is reckoned before it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from bibench_tvm.importer.imported import ImportFailed
from bibench_tvm.importer.limits import is_too_much, refuse_growth, refuse_large

_MOST_NODES = 100_000
_TELLING = 64  # elements: a constant of more of them is no shape


# ---- weights in other files


def refuse_external_growth(model: onnx.ModelProto, path: Path) -> None:
    """Many tensors may claim the same bytes of one file."""
    wanted = 0
    files: dict[str, int] = {}
    for tensor in external_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        place = entries.get("location", "")
        try:
            size = files.setdefault(place, (path.parent / place).stat().st_size)
        except (OSError, ValueError):
            continue  # loading it will tell
        length = entries.get("length", "")
        wanted += min(int(length), size) if length.isdecimal() else size
    refuse_growth("The weights", wanted, sum(files.values()), path)


def external_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """The tensors of a model whose numbers lie in other files."""
    tensors = [*model.graph.initializer, *(t for node in all_nodes(model.graph.node) for t in _tensors(node))]
    for function in model.functions:
        tensors += [tensor for node in all_nodes(function.node) for tensor in _tensors(node)]
    yield from (tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL)


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """With those of subgraphs."""
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from all_nodes(graph.node)


def _subgraphs(node: NodeProto) -> list[GraphProto]:
    return [graph for a in node.attribute for graph in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def _tensors(node: NodeProto) -> list[TensorProto]:
    found = [
        tensor for a in node.attribute for tensor in ([a.t] if a.HasField("t") else []) + list(a.tensors)
    ]
    return found + [tensor for graph in _subgraphs(node) for tensor in graph.initializer]


# ---- functions


def refuse_many_nodes(model: onnx.ModelProto, path: Path) -> None:
    """Raise ImportFailed where the functions call themselves, or make too many nodes when inlined."""
    bodies = {(f.domain, f.name, f.overload): list(all_nodes(f.node)) for f in model.functions}
    counts: dict[Any, int] = {}

    def count(nodes: list[NodeProto]) -> int:
        return sum(counts.get((node.domain, node.op_type, node.overload), 1) for node in nodes)

    waiting = dict(bodies)
    while waiting:
        ready = [
            key
            for key, nodes in waiting.items()
            if not any((node.domain, node.op_type, node.overload) in waiting for node in nodes)
        ]
        if not ready:
            _, name, _ = next(iter(waiting))
            raise ImportFailed(f"The function {name!r} in {path} calls itself, directly or by others.")
        for key in ready:
            counts[key] = count(waiting.pop(key))
    nodes = count(list(all_nodes(model.graph.node)))
    if nodes > _MOST_NODES:
        raise ImportFailed(
            f"{path} has {nodes:,} nodes once its functions are inlined, and {_MOST_NODES:,} is the most "
            "that is compiled."
        )


# ---- tensors


def refuse_large_tensors(shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    for name, shape in shapes.items():
        refuse_large(f"The tensor {name!r}", shape, path)


class Growth:
    """The bytes of the constants that are folded from those in a file, reckoned before each is made."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self._path, self._size, self._grown = path, model.ByteSize(), 0

    def add(self, node: NodeProto, constants: Mapping[str, Any], opsets: Any) -> None:
        """Raise ImportFailed where the outputs of a node of constants are too large."""
        new = _bytes_made(node, constants, opsets)
        if is_too_much(self._grown + new, self._size):
            name = next((name for name in node.output if name), node.name)
            refuse_growth(f"The constant {name!r}", self._grown + new, self._size, self._path)
        self._grown += new


def _bytes_made(node: NodeProto, constants: Mapping[str, Any], opsets: Any) -> int:
    """By ONNX's shape inference; 0 where that cannot tell."""
    names = [name for name in dict.fromkeys(node.input) if name]
    inputs, known = [], []
    for name in names:
        value = np.asarray(constants[name])
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
        if value.size <= _TELLING:
            known.append(numpy_helper.from_array(value, name))
    results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "constant", inputs, results, initializer=known)
    try:
        made = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets), data_prop=True
        )
    except Exception:  # the evaluation will tell what is wrong with it
        return 0
    total = 0
    for value in made.graph.output:
        dims = value.type.tensor_type.shape.dim
        total += 8 * math.prod(dim.dim_value for dim in dims if dim.dim_value > 0)
    return total
