"""ONNX as the reference: the model as it was written, in onnxruntime or in ONNX's reference implementation.

Layers get integers of the artifact through inputs that are added to the model. In float64 it is the plain
model of the importer that runs, see `double.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.double import FLOATS, Arrays, DoubleNodes, evaluator, widened
from bibench_tvm.importer.imported import TensorSpec
from bibench_tvm.importer.reference import (
    Decision,
    Injection,
    Interior,
    ReferenceRun,
    SourceLayer,
    nearest,
    reached,
)
from bibench_tvm.importer.shapes import as_input_array, check_input_count

Run = Callable[[list[str], dict[str, np.ndarray]], list[Any]]

_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
_DECISIONS = {
    **dict.fromkeys((*_COMPARISONS, "Sign"), "zero"),
    "Round": "half",
    **dict.fromkeys(("Floor", "Ceil"), "whole"),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK"), "order"),
}


class OnnxReference:
    """See `Reference`.

    model: as written, with static shapes; plain: what the importer made of it, in which layers are found;
    layers: name -> node of `plain`; shapes: of its tensors.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        plain: onnx.ModelProto,
        layers: Mapping[str, NodeProto],
        shapes: Mapping[str, tuple[int, ...]],
        inputs: Sequence[TensorSpec],
    ) -> None:
        self.model, self.plain, self.inputs = model, plain, inputs
        self.nodes = dict(layers)
        self.shapes = shapes
        self.constants = {tensor.name: tensor for tensor in plain.graph.initializer}
        described = [*plain.graph.input, *plain.graph.value_info, *plain.graph.output]
        self.floats = {v.name for v in described if v.type.tensor_type.elem_type in FLOATS}
        self.producers = {name: node for node in plain.graph.node for name in node.output if name}
        self.output_names = [value.name for value in model.graph.output]
        # Positions in node.input of the activations, and of the weights.
        self.operands = {
            name: [p for p in (0, 1) if node.input[p] not in self.constants] for name, node in layers.items()
        }
        self.weight_positions = {
            name: next((p for p in (0, 1) if node.input[p] in self.constants), None)
            for name, node in layers.items()
        }
        self._made_by_layers = {node.output[0] for node in layers.values()}
        self.layers = {name: self._layer(name) for name in self.nodes}
        self._runs: dict[Any, Run] = {}
        self._wide_constants: dict[str, np.ndarray] = {}
        self._double = DoubleNodes(plain, partial(_runner, alone=True))

    def _layer(self, name: str) -> SourceLayer:
        node = self.nodes[name]
        convolution = node.op_type in ("Conv", "ConvTranspose")
        interiors = [self._interiors(node.input[p]) if convolution else () for p in self.operands[name]]
        weights = self.weight_positions[name]
        transposed = bool(_attribute(node, "transB", 0))
        first = 1 if node.op_type == "ConvTranspose" else 0
        axis = None if weights is None else first if convolution or transposed else -1
        weights_first = not convolution and weights == 0
        if weights_first:
            axis = -1 if _attribute(node, "transA", 0) else -2
        return SourceLayer(
            convolution,
            tuple(
                _turned(self.shapes.get(node.input[p], ()), node, p) for p in self.operands[name]
            ),  # one that is not known fits nothing
            tuple(interiors),
            columns=not transposed,
            weight_axis=axis,
            weights_first=weights_first,
        )

    def _interiors(self, tensor: str) -> tuple[Interior, ...]:
        found: list[Interior] = []
        starts = [0] * len(self.shapes.get(tensor, ()))
        while (node := self.producers.get(tensor)) is not None and node.op_type == "Pad":
            pads = _attribute(node, "pads", None)
            if pads is None and node.input[1] in self.constants and len(node.input) < 4:
                pads = numpy_helper.to_array(self.constants[node.input[1]]).tolist()
            value = _attribute(node, "value", 0.0)
            if len(node.input) > 2 and node.input[2]:
                fill = self.constants.get(node.input[2])
                value = 1.0 if fill is None else numpy_helper.to_array(fill).item()
            mode = _attribute(node, "mode", b"constant")
            shape = self.shapes.get(node.input[0])
            if pads is None or min(pads) < 0 or value or mode != b"constant" or shape is None:
                break
            starts = [start + before for start, before in zip(starts, pads, strict=False)]
            found.append(tuple(slice(s, s + size) for s, size in zip(starts, shape, strict=True)))
            tensor = node.input[0]
        return tuple(found)

    def __call__(
        self,
        values: list[np.ndarray],
        injections: Mapping[str, Injection] | None = None,
        *,
        wanted: Collection[str] = (),
        replaced: Mapping[str, np.ndarray] | None = None,
        nudged: Mapping[str, np.ndarray] | None = None,
        double: bool = False,
    ) -> ReferenceRun:
        check_input_count(values, self.inputs)
        feeds = {spec.name: as_input_array(v, spec) for v, spec in zip(values, self.inputs, strict=True)}
        injections, replaced, nudged = injections or {}, replaced or {}, nudged or {}
        given: dict[tuple[str, int], str] = {}
        for layer, injection in injections.items():
            node = self.nodes[layer]
            arrays = dict(zip(self.operands[layer], injection.operands, strict=True))
            if injection.weights is not None:
                arrays[self.weight_positions[layer]] = injection.weights  # type: ignore[index]
            for position, array in arrays.items():
                given[layer, position] = name = f"{layer}.given.{position}"
                feeds[name] = np.ascontiguousarray(_turned(array, node, position))
        for tensor, array in replaced.items():
            feeds[f"{tensor}.replaced"] = array
        for tensor, array in nudged.items():
            feeds[f"{tensor}.factor"] = array
        key = (tuple(given), tuple(sorted(wanted)), tuple(replaced), tuple(nudged), double)
        if key not in self._runs:
            self._runs[key] = self._make_run(given, wanted, list(replaced), list(nudged), feeds, double)
        operands = self._operand_names(double)
        names = list(dict.fromkeys([*self.output_names, *sum(operands.values(), []), *wanted]))
        asked = [name for name in names if name not in feeds]
        if double:
            feeds = {name: widened(array) for name, array in feeds.items()}
        tensors = {**feeds, **dict(zip(asked, self._runs[key](asked, feeds), strict=True))}
        layer_inputs = {
            layer: tuple(
                np.ascontiguousarray(_turned(np.asarray(tensors[name]), self.nodes[layer], position))
                for name, position in zip(found, self.operands[layer], strict=True)
            )
            for layer, found in operands.items()
        }
        return ReferenceRun(
            [np.asarray(tensors[name]) for name in self.output_names],
            layer_inputs,
            {name: np.asarray(tensors[name]) for name in wanted},
            rounded_in_float32=double and self._double.rounded_in_float32,
        )

    def _operand_names(self, double: bool) -> dict[str, list[str]]:
        """The tensors that the layers read, as the model that runs calls them."""
        nodes = self.nodes if double else self._written()
        return {name: [nodes[name].input[p] for p in self.operands[name]] for name in self.nodes}

    def _written(self) -> dict[str, NodeProto]:
        """The layers' nodes in the model as written, which computes the same tensors."""
        producers = {name: node for node in self.model.graph.node for name in node.output if name}
        return {layer: producers[node.output[0]] for layer, node in self.nodes.items()}

    def _make_run(
        self,
        given: Mapping[tuple[str, int], str],
        wanted: Iterable[str],
        replaced: Sequence[str],
        nudged: Sequence[str],
        feeds: Mapping[str, np.ndarray],
        double: bool,
    ) -> Run:
        model = onnx.ModelProto()
        model.CopyFrom(self.plain if double else self.model)
        graph = model.graph
        operands = sum(self._operand_names(double).values(), [])
        producers = {name: node for node in graph.node for name in node.output if name}
        for node in graph.node:
            for position, tensor in enumerate(node.input):
                if tensor in replaced:
                    node.input[position] = f"{tensor}.replaced"
                if tensor in nudged:
                    node.input[position] = f"{tensor}.nudged"
        for tensor in nudged:
            at = 1 + next((i for i, node in enumerate(graph.node) if tensor in node.output), -1)
            product = helper.make_node("Mul", [tensor, f"{tensor}.factor"], [f"{tensor}.nudged"])
            graph.node.insert(at, product)
        for (layer, position), name in given.items():
            producers[self.nodes[layer].output[0]].input[position] = name
        fed = (*(f"{tensor}.replaced" for tensor in replaced), *(f"{tensor}.factor" for tensor in nudged))
        for name in [*given.values(), *fed]:
            array = feeds[name]
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        known = {value.name for value in [*graph.input, *graph.output]}
        graph.output.extend(
            onnx.ValueInfoProto(name=name)
            for name in dict.fromkeys([*operands, *wanted])
            if name not in known
        )
        return self._run_in_double(model) if double else _runner(model)

    def _run_in_double(self, model: onnx.ModelProto) -> Run:
        if not self._wide_constants:
            wide = {name: widened(numpy_helper.to_array(t)) for name, t in self.constants.items()}
            self._wide_constants.update(wide)

        def run(names: list[str], feeds: dict[str, np.ndarray]) -> list[Any]:
            tensors: dict[str, np.ndarray | None] = {**self._wide_constants, **feeds, "": None}
            for node in model.graph.node:
                operands: Arrays = [tensors[name] for name in node.input]
                tensors.update(zip(node.output, self._double(node, operands), strict=True))
                tensors[""] = None
            return [tensors[name] for name in names]

        return run

    def weights(self, layer: str) -> np.ndarray:
        position = self.weight_positions[layer]
        assert position is not None
        return numpy_helper.to_array(self.constants[self.nodes[layer].input[position]])

    def sums(self, layer: str, operands: tuple[np.ndarray, ...], weights: np.ndarray | None) -> np.ndarray:
        node = NodeProto()
        node.CopyFrom(self.nodes[layer])
        given = dict(zip(self.operands[layer], operands, strict=True))
        if weights is not None:
            given[self.weight_positions[layer]] = weights  # type: ignore[index]
        del node.input[:]
        node.input.extend(["left", "right"])
        kept = [a for a in node.attribute if a.name not in ("alpha", "beta")]  # of Gemm
        del node.attribute[:]
        node.attribute.extend(kept)
        turned = {p: _turned(x, node, p) if p in self.operands[layer] else x for p, x in given.items()}
        feeds = {name: turned[position].astype(np.float64) for position, name in enumerate(node.input)}
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.DOUBLE, array.shape)
            for name, array in feeds.items()
        ]
        graph = helper.make_graph([node], "layer", inputs, [onnx.ValueInfoProto(name=node.output[0])])
        model = helper.make_model(graph, opset_imports=self.plain.opset_import)
        return np.asarray(evaluator(model).run(None, feeds)[0])

    def decisions(self, layer: str, position: int) -> list[Decision]:
        return self._nearest(self.nodes[layer].input[self.operands[layer][position]])

    def output_decisions(self, output: int) -> list[Decision]:
        return self._nearest(self.output_names[output])

    def before(self, tensor: str) -> list[str]:
        return [name for name in reached(tensor, self._sources) if name in self.floats]

    def _nearest(self, tensor: str) -> list[Decision]:
        def decision(name: str) -> Decision | None:
            return self._decision(self.producers[name]) if name in self.producers else None

        return nearest(tensor, decision, self._sources)

    def _sources(self, tensor: str) -> list[str]:
        """The activations that it is computed from; of what a layer makes, none."""
        node = self.producers.get(tensor)
        if node is None or node.output[0] in self._made_by_layers:
            return []
        return [source for source in node.input if source and source not in self.constants]

    def _decision(self, node: NodeProto) -> Decision | None:
        kind = _DECISIONS.get(node.op_type)
        to = _attribute(node, "to", TensorProto.FLOAT)
        if to not in (*FLOATS, TensorProto.DOUBLE) and node.input[0] in self.floats:
            kind = "zero" if to == TensorProto.BOOL else "whole"
        if kind is None:
            return None
        x, other = (*node.input, None)[:2]
        if node.op_type not in _COMPARISONS:
            return Decision(kind, x)
        if x in self.constants or self.shapes.get(x) != self.shapes.get(node.output[0]):
            x, other = other, x
        if other in self.constants:
            return Decision(kind, x, numpy_helper.to_array(self.constants[other]))
        return Decision(kind, x, other)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _turned(value: Any, node: NodeProto, position: int) -> Any:
    """The left operand of a Gemm that transposes it as [M, K], an array or a shape; any other as it is."""
    if position != 0 or not _attribute(node, "transA", 0):
        return value
    return value.T if isinstance(value, np.ndarray) else value[::-1]


def _runner(model: onnx.ModelProto, *, alone: bool = False) -> Run:
    """alone: it is one node, for which threads are not worth their waiting."""
    try:
        import onnxruntime
    except ImportError:
        return evaluator(model).run
    options = onnxruntime.SessionOptions()
    # Fusions would round differently from the graph as it was written, and hide the layers' inputs.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    if alone:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # an operator or opset that onnxruntime does not have
        return evaluator(model).run

    def run(names: list[str], feeds: dict[str, np.ndarray]) -> list[Any]:
        try:
            return session.run(names, feeds)
        except Exception:  # onnxruntime has no dilation with automatic padding, for one
            return evaluator(model).run(names, feeds)

    return run
