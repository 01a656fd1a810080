"""ONNX models in other floating types than float32: rewritten to compute in it, or refused.

Half precision is computed in float32, which has every value of it; the inputs and outputs keep their type,
and are cast. float64 is computed so where somebody asks for it. What depends on initializers alone is left
as it is: that is folded in the type in which it was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bibench_tvm.importer.sentences import note_on_dtype, of_another_type, of_bfloat16, of_float64

_FLOAT32 = TensorProto.FLOAT
_NAMES = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
_COMPILED = {
    _FLOAT32,
    TensorProto.BOOL,
    *(getattr(TensorProto, f"{kind}{bits}") for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)),
}
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type")


def in_float32(model: onnx.ModelProto, path: Path, *, asked: bool) -> tuple[onnx.ModelProto, list[str]]:
    """The model with its shapes set, computing in float32, and notes for the user. Raises ImportFailed."""
    types = _element_types(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    found: dict[int, str] = {}  # type -> the first tensor that is of it
    exact = _only_cast(model.graph)
    for name in _activations(model.graph):
        if types.get(name) != TensorProto.DOUBLE or name not in exact:
            found.setdefault(types.get(name, _FLOAT32), name)
    if TensorProto.DOUBLE in found and not asked:
        raise of_float64(repr(found[TensorProto.DOUBLE]), path)
    replaced = {dtype for dtype in found if dtype in _NAMES}
    if not replaced:
        return model, []
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16 and not asked:
            raise of_bfloat16(repr(value.name), path)
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    _widen(widened.graph, replaced)
    return widened, [note_on_dtype(sorted(_NAMES[dtype] for dtype in replaced))]


def refuse_other_types(model: onnx.ModelProto, path: Path, *, asked: bool) -> None:
    """Raise ImportFailed for a tensor of a plain graph that cannot be compiled.

    A float64 constant that float32 has exactly becomes that: the exponent of a `Pow`, for one.
    """
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            exact = numpy_helper.to_array(tensor)
            rounded = exact.astype(np.float32)
            if asked or np.array_equal(rounded, exact, equal_nan=True):
                tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    boundary = dict.fromkeys(value.name for value in (*graph.input, *graph.output))
    exact = _only_cast(graph)
    types = _element_types(graph)
    used = dict.fromkeys(name for node in graph.node for name in (*node.input, *node.output))
    for name in (*boundary, *used):
        dtype = types.get(name, _FLOAT32)
        # A cast at the door is all that half precision and float64 are left with.
        if dtype not in _COMPILED and not (
            (name in boundary or name in exact) and dtype in (TensorProto.FLOAT16, TensorProto.DOUBLE)
        ):
            if dtype == TensorProto.DOUBLE:
                raise of_float64(repr(name), path)
            raise of_another_type(repr(name), path, _spelled(dtype))


def _spelled(dtype: int) -> str:
    return TensorProto.DataType.Name(dtype).lower() if dtype else "of no type that can be told"


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {
        value.name: value.type.tensor_type.elem_type for value in values if value.type.WhichOneof("value")
    }
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _activations(graph: onnx.GraphProto) -> Iterable[str]:
    """The tensors whose values depend on the inputs', in order; shapes are static."""
    known = dict.fromkeys(value.name for value in graph.input)
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and any(name in known for name in node.input):
            known |= dict.fromkeys(name for name in node.output if name)
    return known


def _only_cast(graph: onnx.GraphProto) -> set[str]:
    """Inputs and results of a `Cast` that only a `Cast` reads: no arithmetic is in their type."""
    made = {value.name for value in graph.input}
    made |= {name for node in graph.node if node.op_type == "Cast" for name in node.output}
    return made - {name for node in graph.node if node.op_type != "Cast" for name in node.input}


def _widen(graph: onnx.GraphProto, replaced: set[int]) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor, replaced)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t, replaced)
            elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in replaced:
                attribute.i = _FLOAT32
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    inside: dict[str, str] = {}
    before: list[NodeProto] = []
    after: list[NodeProto] = []
    for values, casts in ((graph.input, before), (graph.output, after)):
        for value in values:
            dtype = value.type.tensor_type.elem_type
            if dtype not in replaced or value.name in inside:
                continue
            if dtype == TensorProto.BFLOAT16:  # numpy has no such arrays to take or to give
                value.type.tensor_type.elem_type = _FLOAT32
                continue
            name = f"{value.name}_in_float32"
            while name in taken:
                name += "_"
            taken.add(name)
            inside[value.name] = name
            ends = (value.name, name, _FLOAT32) if casts is before else (name, value.name, dtype)
            casts.append(
                helper.make_node("Cast", [ends[0]], [ends[1]], name=f"cast_{value.name}", to=ends[2])
            )
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = inside.get(name, name)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def _widen_tensor(tensor: TensorProto, replaced: set[int]) -> None:
    if tensor.data_type in replaced:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
