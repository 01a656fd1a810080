"""ONNX -> Relax.

The graph is made plain before TVM sees it: shapes static, functions inlined, whatever depends on initializers
alone computed by ONNX's own reference implementation, automatic padding spelled out. What is left are the
operators on activations, which TVM's frontend translates.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import tvm
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from bibench_tvm.importer.from_onnx.dtypes import in_float32, refuse_other_types
from bibench_tvm.importer.from_onnx.limits import (
    Growth,
    external_tensors,
    refuse_external_growth,
    refuse_large_tensors,
    refuse_many_nodes,
)
from bibench_tvm.importer.from_onnx.reference import OnnxReference
from bibench_tvm.importer.from_onnx.repairs import REPAIRS, Attributes
from bibench_tvm.importer.imported import (
    LAYER_OPERATORS,
    Imported,
    ImportFailed,
    InputShapes,
    TensorSpec,
    first_line,
    layer_variables,
    note_on_batch,
    returned_types,
    shapes_by_name,
)
from bibench_tvm.importer.operators import has_infinities, with_bounded_indices, with_infinities

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
_ANOTHER = ("Attention",)  # TVM takes it for an operator of the same name that is not ONNX's
_FOLDED_SIZE_LIMIT = 1 << 28  # bytes: a constant that grows beyond this stays an operator


def import_onnx(
    path: str | Path, input_shapes: InputShapes | None = None, *, float32: bool = False
) -> Imported:
    """Import an ONNX file; `input_shapes` fixes dynamic dimensions, `float32`: see `import_model`. Raises
    ImportFailed."""
    path = Path(path)
    model = _load(path)
    _refuse_bad_values(model, path)
    model, batch_notes = _with_static_shapes(model, input_shapes, path)
    model, dtype_notes = in_float32(model, path, asked=float32)
    original = onnx.ModelProto()
    original.CopyFrom(model)
    plain = _make_plain(model, path)
    refuse_other_types(plain, path, asked=float32)
    _refuse_infinite_operands(plain, path)
    translator = _Translator(plain, path)
    module = with_bounded_indices(translator.translate(), str(path))
    module = relax.transform.FoldConstant()(module)
    inputs = tuple(_spec_of(value, path) for value in plain.graph.input)
    surviving = set(layer_variables(module))
    return Imported(
        module=module,
        inputs=inputs,
        outputs=_outputs_of(module, plain),
        layer_names={var: layer for var, layer in translator.layer_names.items() if var in surviving},
        reference=OnnxReference(original, plain, translator.layer_nodes, _static_shapes(plain), inputs),
        notes=[*batch_notes, *dtype_notes],
    )


# ---- reading


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ImportFailed(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ImportFailed(f"{path} is not an ONNX file, or it is truncated: {first_line(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ImportFailed(f"{path} holds no ONNX graph: it is empty, truncated or another kind of file.")
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ImportFailed(
                f"{path} uses ONNX opset {opset.version}, but onnx {onnx.__version__} knows opsets up to "
                f"{newest}; export it with an older opset."
            )
    refuse_external_growth(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        missing = ", ".join(sorted(_external_files(model)))
        raise ImportFailed(
            f"The weights of {path} are in other files that cannot be read ({missing}): {first_line(error)} "
            "They have to lie beside it."
        ) from error
    try:
        if model.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
            onnx.checker.check_model(model)
    except Exception as error:
        raise ImportFailed(f"{path} is not a valid ONNX model: {first_line(error)}") from error
    return model


def _external_files(model: onnx.ModelProto) -> set[str]:
    return {
        entry.value
        for tensor in external_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _refuse_bad_values(model: onnx.ModelProto, path: Path) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            continue
        array = numpy_helper.to_array(tensor)
        # A single number may be a bound of Clip, and -inf hides positions in a mask; neither is a weight.
        bad = np.isnan(array) if array.size == 1 else np.isnan(array) | (array == np.inf)
        if bad.any():
            raise ImportFailed(
                f"The initializer {tensor.name!r} of {path} has {int(bad.sum())} values that are NaN or "
                f"infinite out of {array.size}; the training diverged, or the file is damaged."
            )


def _refuse_infinite_operands(model: onnx.ModelProto, path: Path) -> None:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in (*_LAYERS, "BatchNormalization"):
            for name in node.input:
                if name in constants and not np.isfinite(numpy_helper.to_array(constants[name])).all():
                    raise ImportFailed(
                        f"The operand {name!r} of {node.op_type} (node {_name_of(node)!r}) in {path} has "
                        "values that are NaN or infinite; the training diverged, or the file is damaged."
                    )


def _with_static_shapes(
    model: onnx.ModelProto, input_shapes: InputShapes | None, path: Path
) -> tuple[onnx.ModelProto, list[str]]:
    """Set the inputs' shapes, forget what the file claims about those in between, and infer them.

    Also notes for the user: a first size that is left open is the batch, 1 unless another input says.
    """
    graph = model.graph
    # Before IR version 4 initializers were listed as inputs too.
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    del graph.input[:]
    graph.input.extend(inputs)
    shapes = shapes_by_name(input_shapes, [value.name for value in inputs], str(path))
    notes = []
    batches = {
        value.type.tensor_type.shape.dim[0].dim_param: shapes[value.name][0]
        for value in graph.input
        if shapes.get(value.name) and len(value.type.tensor_type.shape.dim)
    }
    for value in graph.input:
        if value.type.WhichOneof("value") != "tensor_type":
            raise ImportFailed(f"Input {value.name!r} of {path} is not a tensor.")
        dims = value.type.tensor_type.shape.dim
        known = value.type.tensor_type.HasField("shape")
        sizes = [
            d.dim_value if d.WhichOneof("value") == "dim_value" and d.dim_value > 0 else None for d in dims
        ]
        shape = shapes.get(value.name)
        if shape is None and sizes and sizes[0] is None and None not in sizes[1:]:
            symbol = dims[0].dim_param
            shape = (batches.get(symbol, 1) if symbol else 1, *(size or 0 for size in sizes[1:]))
            notes.append(note_on_batch(value.name, shape))
        if shape is None:
            if not known or None in sizes:
                has = "x".join(
                    str(d.dim_param or "?") if s is None else str(s) for d, s in zip(dims, sizes, strict=True)
                )
                example = "x".join(str(size or 1) for size in sizes) if known else "1x3x32x32"
                raise ImportFailed(
                    f"Input {value.name!r} of {path} has the dynamic shape {has or '(unknown)'}; give its "
                    f"sizes with --input-shape {value.name}:{example}."
                )
            shape = tuple(size or 0 for size in sizes)
        elif known and (
            len(sizes) != len(shape)
            or any(s not in (None, want) for s, want in zip(sizes, shape, strict=True))
        ):
            has = "x".join(str(size or "?") for size in sizes)
            raise ImportFailed(
                f"Input {value.name!r} of {path} is {has}, so it cannot be {'x'.join(map(str, shape))}."
            )
        elem_type = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, elem_type, shape))
    # The declared shapes may carry the symbolic batch that was just fixed, which inference would refuse.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    refuse_many_nodes(model, path)
    refuse_large_tensors(_static_shapes(model), path)
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        # Operators that ONNX defines by others, and that TVM lacks, are replaced by their definition.
        unknown = {(node.domain, node.op_type) for node in model.graph.node if not _is_translatable(node)}
        if unknown:
            model = onnx.inliner.inline_selected_functions(model, list(unknown), inline_schema_functions=True)
        return model, notes
    except Exception as error:
        raise ImportFailed(f"The functions in {path} cannot be inlined: {first_line(error)}") from error


def _is_translatable(node: NodeProto) -> bool:
    return (
        node.domain in ("", "ai.onnx")
        and node.op_type in onnx_frontend._get_convert_map()
        and node.op_type not in _ANOTHER
    )


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    # Not in strict mode: that refuses MeanVarianceNormalization, whose definition onnx itself writes badly.
    # Shapes that do not fit together stay unknown here, and TVM says where.
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


# ---- a plain graph


def _make_plain(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Fold constants and shapes until nothing changes, then spell out what is implicit."""
    growth = Growth(model, path)
    while True:
        model = _infer(model)
        if not _fold(model, growth):
            break
    shapes = _static_shapes(model)
    refuse_large_tensors(shapes, path)
    for node in model.graph.node:
        _spell_out_padding(node, shapes)
    return model


def _static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
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


def _fold(model: onnx.ModelProto, growth: Growth) -> bool:
    """Replace nodes that depend on constants and shapes alone by initializers; True if there were any.

    Nodes and initializers that nothing needs any more are dropped.
    """
    graph = model.graph
    shapes = _static_shapes(model)
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
            and not _has_subgraph(node)
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


def _has_subgraph(node: NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)


def _slice_of(node: NodeProto) -> slice:
    attributes = _attributes(node)
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
        values = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(
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


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _spell_out_padding(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Turn `auto_pad` and `output_shape` into `pads` (all begins, then all ends)."""
    if node.op_type not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"):
        return
    attributes = _attributes(node)
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


# ---- from the plain graph to Relax


class _Translator(onnx_frontend.ONNXGraphImporter):
    """TVM's translator, which then gives each ONNX node one Relax variable, and names the layers.

    After `translate`, `layer_names` maps Relax variable names to layer names, and `layer_nodes` layer
    names to ONNX nodes.
    """

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        super().__init__({}, {})
        self.model = model
        self.path = path
        self.layer_names: dict[str, str] = {}
        self.layer_nodes: dict[str, NodeProto] = {}
        self._dtypes = {
            value.name: str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for value in (*model.graph.value_info, *model.graph.output)
        }
        self.infinite = any(has_infinities(numpy_helper.to_array(t)) for t in model.graph.initializer)
        self._node: NodeProto | None = None
        self._taken: Counter[str] = Counter()

    def translate(self) -> tvm.IRModule:
        """The Relax module with the function `main`."""
        graph = self.model.graph
        for node in graph.node:
            if not _is_translatable(node) or _has_subgraph(node):
                domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
                way_out = "write it with other operators"
                if node.op_type.endswith("Integer") or node.op_type.startswith("QLinear"):
                    way_out = "quantize in the QDQ form, QuantizeLinear and DequantizeLinear around Conv"
                raise ImportFailed(
                    f"{self.path} uses the operator {domain}{node.op_type} (node {_name_of(node)!r}), which "
                    f"TVM {tvm.__version__} cannot import from ONNX; {way_out}."
                )
        opset = next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                module = self.from_onnx(graph, opset)
            except ImportFailed:
                raise
            except Exception as error:
                raise ImportFailed(
                    f"TVM {tvm.__version__} cannot import {self._current()} of {self.path}: "
                    f"{first_line(error)}"
                ) from error
        module["main"] = module["main"].without_attr("num_input")
        return module

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> relax.Expr:
        repair = REPAIRS.get(op_name)
        attributes = Attributes(attrs)
        made = repair(list(inputs), attributes, opset) if repair else None
        if made is None:
            made = super()._convert_operator(op_name, inputs, attributes, opset)
            if ignored := attributes.ignored(op_name, opset):
                raise NotImplementedError(f"it ignores the attribute {' and '.join(ignored)}.")
        return self.bb.normalize(made)

    def _current(self) -> str:
        return (
            "the graph"
            if self._node is None
            else f"the operator {self._node.op_type} (node {_name_of(self._node)!r})"
        )

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            self._node = node
            single = onnx.GraphProto()
            single.node.append(node)
            super()._construct_nodes(single)
            # A converter returns an unbound expression, which every use would compute once more.
            for name in node.output:
                if name and isinstance(self._nodes.get(name), (relax.Call, relax.TupleGetItem)):
                    self._nodes[name] = self._of_its_type(name, self.bb.emit(self._nodes[name]))
            if node.op_type in ("ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool") and self.infinite:
                made = with_infinities(self._nodes[node.output[0]], greatest=node.op_type != "ReduceMin")
                self._nodes[node.output[0]] = self.bb.emit(made)
            if node.op_type in _LAYERS:
                self._name_layer(node)
        self._node = None

    def _of_its_type(self, name: str, made: relax.Var) -> relax.Var:
        """What TVM made of a tensor, in the type that ONNX gives it."""
        expected = self._dtypes.get(name)
        if (
            expected is None
            or not isinstance(made.ty, relax.TensorType)
            or str(made.ty.dtype.dtype) == expected
        ):
            return made
        have = str(made.ty.dtype.dtype)
        if "float" in expected or "float" in have:
            raise ImportFailed(
                f"TVM {tvm.__version__} makes the tensor {name!r} of {self.path} {have}, and ONNX makes it "
                f"{expected}: {self._current()} cannot be compiled so; put a Cast before or after it."
            )
        return self.bb.emit(relax.op.astype(made, expected))

    def _name_layer(self, node: NodeProto) -> None:
        name = _name_of(node)
        self._taken[name] += 1
        if self._taken[name] > 1:
            name = f"{name}#{self._taken[name]}"
        self.layer_names[self._layer_variable(node)] = name
        self.layer_nodes[name] = node

    def _layer_variable(self, node: NodeProto) -> str:
        stops = {self._nodes[i].name for i in node.input if i and isinstance(self._nodes[i], relax.Var)}
        pending = [self._nodes[node.output[0]]]
        while pending:
            expr = pending.pop()
            if not isinstance(expr, relax.Var) or expr.name in stops:
                continue
            value = self.bb.lookup_binding(expr)
            if isinstance(value, relax.Call):
                if value.op.name in LAYER_OPERATORS:
                    return expr.name
                pending.extend(value.args)
        raise ImportFailed(
            f"The layer {_name_of(node)!r} of {self.path} became something else than a layer in TVM."
        )


def _name_of(node: NodeProto) -> str:
    return node.name or next(name for name in node.output if name)


def _spec_of(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    tensor_type = value.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type))
    return TensorSpec(value.name, tuple(d.dim_value for d in tensor_type.shape.dim), dtype)


def _outputs_of(module: tvm.IRModule, model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(value.name, shape, dtype)
        for value, (shape, dtype) in zip(model.graph.output, returned_types(module), strict=True)
    )
