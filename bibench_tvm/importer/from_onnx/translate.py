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

import onnx
import tvm
from onnx import NodeProto, helper, numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from bibench_tvm.importer.blocks import closed_at_failure
from bibench_tvm.importer.from_onnx.attributes import Attributes
from bibench_tvm.importer.from_onnx.dtypes import in_float32, refuse_other_types
from bibench_tvm.importer.from_onnx.einsum import spell_out_einsum
from bibench_tvm.importer.from_onnx.expressions import shape_of
from bibench_tvm.importer.from_onnx.masks import spell_out_masks
from bibench_tvm.importer.from_onnx.nodes import LAYERS, has_subgraph, name_of
from bibench_tvm.importer.from_onnx.plain import make_plain, refuse_infinite_operands
from bibench_tvm.importer.from_onnx.read import read_onnx
from bibench_tvm.importer.from_onnx.reference import OnnxReference
from bibench_tvm.importer.from_onnx.repairs import REPAIRS
from bibench_tvm.importer.from_onnx.shapes import is_translatable, static_shapes, with_static_shapes
from bibench_tvm.importer.imported import Imported, ImportFailed, TensorSpec
from bibench_tvm.importer.indices import with_bounded_indices
from bibench_tvm.importer.naming import layer_variable, layer_variables, numbered
from bibench_tvm.importer.operators import has_infinities, with_infinities
from bibench_tvm.importer.sentences import of_operator, of_unknown_operator, of_vanished_layer
from bibench_tvm.importer.shapes import InputShapes, returned_types


def import_onnx(
    path: str | Path, input_shapes: InputShapes | None = None, *, float32: bool = False
) -> Imported:
    """Import an ONNX file; `input_shapes` fixes dynamic dimensions, `float32`: see `import_model`. Raises
    ImportFailed."""
    path = Path(path)
    model = read_onnx(path)
    model, batch_notes = with_static_shapes(model, input_shapes, path)
    model, dtype_notes = in_float32(model, path, asked=float32)
    spell_out_einsum(model)
    spell_out_masks(model)
    original = onnx.ModelProto()
    original.CopyFrom(model)
    plain = make_plain(model, path)
    refuse_other_types(plain, path, asked=float32)
    refuse_infinite_operands(plain, path)
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
        reference=OnnxReference(
            original, plain, translator.layer_nodes, translator.shapes() | static_shapes(plain), inputs
        ),
        notes=[*batch_notes, *dtype_notes],
    )


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
            if not is_translatable(node) or has_subgraph(node):
                domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
                way_out = "write it with other operators"
                if node.op_type.endswith("Integer") or node.op_type.startswith("QLinear"):
                    way_out = "quantize in the QDQ form, QuantizeLinear and DequantizeLinear around Conv"
                raise of_unknown_operator(
                    f"{domain}{node.op_type}", f"node {name_of(node)!r}", self.path, "ONNX", way_out
                )
        opset = next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                with closed_at_failure(self.bb):
                    module = self.from_onnx(graph, opset)
            except ImportFailed:
                raise
            except Exception as error:
                raise of_operator(self._current(), self.path, error) from error
        module["main"] = module["main"].without_attr("num_input")
        return module

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape, of what was translated: of some ONNX itself infers none."""
        return {
            name: shape_of(made)
            for name, made in self._nodes.items()
            if isinstance(made, relax.Var) and isinstance(made.ty, relax.TensorType)
        }

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
            else f"the operator {self._node.op_type} (node {name_of(self._node)!r})"
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
            if node.op_type in LAYERS:
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
        operands = (self._nodes[name] for name in node.input if name)
        variable = layer_variable(self.bb, self._nodes[node.output[0]], operands)
        if variable is None:
            raise of_vanished_layer(name_of(node), self.path)
        name = numbered(name_of(node), self._taken)
        self.layer_names[variable] = name
        self.layer_nodes[name] = node


def _spec_of(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    tensor_type = value.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type))
    return TensorSpec(value.name, tuple(d.dim_value for d in tensor_type.shape.dim), dtype)


def _outputs_of(module: tvm.IRModule, model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(value.name, shape, dtype)
        for value, (shape, dtype) in zip(model.graph.output, returned_types(module), strict=True)
    )
