"""The graph of an ONNX file with static shapes and without functions."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
from onnx import NodeProto, helper
from tvm.relax.frontend.onnx import onnx_frontend

from bibench_tvm.cli.errors import first_line
from bibench_tvm.importer.from_onnx.limits import refuse_large_tensors, refuse_many_nodes
from bibench_tvm.importer.imported import ImportFailed
from bibench_tvm.importer.shapes import InputShapes, settled, shapes_by_name

_ANOTHER = ("Attention",)  # TVM takes it for an operator of the same name that is not ONNX's


def with_static_shapes(
    model: onnx.ModelProto, input_shapes: InputShapes | None, path: Path
) -> tuple[onnx.ModelProto, list[str]]:
    """Set the inputs' shapes, forget what the file claims about those in between, and inline functions.

    Also notes for the user: a first size that is left open is the batch, 1 unless another input says.
    """
    graph = model.graph
    # Before IR version 4 initializers were listed as inputs too.
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    del graph.input[:]
    graph.input.extend(inputs)
    given = shapes_by_name(input_shapes, [value.name for value in inputs], str(path))
    sizes: dict[str, list[int | str] | None] = {}
    symbols: dict[str, str] = {}
    for value in graph.input:
        if value.type.WhichOneof("value") != "tensor_type":
            raise ImportFailed(f"Input {value.name!r} of {path} is not a tensor.")
        dims = value.type.tensor_type.shape.dim
        known = value.type.tensor_type.HasField("shape")
        sizes[value.name] = (
            [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in dims] if known else None
        )
        if dims and dims[0].dim_param:
            symbols[value.name] = dims[0].dim_param
    shapes, notes = settled(sizes, symbols, given, str(path))
    for value in graph.input:
        elem_type = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, elem_type, shapes[value.name]))
    # The declared shapes may carry the symbolic batch that was just fixed, which inference would refuse.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    refuse_many_nodes(model, path)
    refuse_large_tensors(static_shapes(model), path)
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        # Operators that ONNX defines by others, and that TVM lacks, are replaced by their definition.
        unknown = {(node.domain, node.op_type) for node in model.graph.node if not is_translatable(node)}
        if unknown:
            model = onnx.inliner.inline_selected_functions(model, list(unknown), inline_schema_functions=True)
        return model, notes
    except Exception as error:
        raise ImportFailed(f"The functions in {path} cannot be inlined: {first_line(error)}") from error


def is_translatable(node: NodeProto) -> bool:
    return (
        node.domain in ("", "ai.onnx")
        and node.op_type in onnx_frontend._get_convert_map()
        and node.op_type not in _ANOTHER
    )


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, for the tensors whose shape is fully known."""
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor_type = value.type.tensor_type
        if tensor_type.HasField("shape"):
            dims = tensor_type.shape.dim
            if all(d.WhichOneof("value") == "dim_value" for d in dims):
                shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes
