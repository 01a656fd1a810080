"""PyTorch as the reference: the program as exported, and a graph interpreter over the decomposed one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

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

aten = torch.ops.aten

_EXACT_FLOAT32 = 1 << 24  # integers below are exact in float32
_COMPARISONS = ("ge", "gt", "le", "lt", "eq", "ne")
_DECISIONS = {
    **dict.fromkeys((*_COMPARISONS, "sign", "sgn", "signbit", "heaviside"), "zero"),
    "round": "half",
    **dict.fromkeys(("floor", "ceil", "trunc"), "whole"),
    **dict.fromkeys(("argmax", "argmin", "topk", "sort", "max", "min"), "order"),
}


class TorchReference:
    """See `Reference`. The outputs come from the program as exported, unless something is injected.

    layers: node of the decomposed program -> its name; positions: operator -> those of its two operands;
    constants: placeholder -> value.
    """

    def __init__(
        self,
        program: ExportedProgram,
        core: ExportedProgram,
        layers: Mapping[fx.Node, str],
        positions: Mapping[Any, tuple[int, int]],
        constants: Mapping[str, torch.Tensor],
        inputs: Sequence[TensorSpec],
    ) -> None:
        self.model = program.module(check_guards=False)
        self.in_spec = program.call_spec.in_spec
        self.core = core
        self.inputs = inputs
        self.nodes = {name: node for node, name in layers.items()}
        self.activations: set[fx.Node] = set()
        for node in core.graph.nodes:
            given = node.op == "placeholder" and node.name not in constants
            if given or any(source in self.activations for source in node.all_input_nodes):
                self.activations.add(node)
        self.constants = self._constants(constants)
        # Positions in node.args of the activations, and of the weights.
        self.operands = {
            name: [p for p in positions[node.target] if node.args[p] in self.activations]
            for node, name in layers.items()
        }
        self.weight_positions = {
            name: next((p for p in positions[node.target] if node.args[p] not in self.activations), None)
            for node, name in layers.items()
        }
        self._layer_nodes = set(layers)
        self.layers = {name: self._layer(name) for name in self.nodes}

    def _constants(self, given: Mapping[str, torch.Tensor]) -> dict[fx.Node, Any]:
        """The value of every node that depends on parameters alone."""
        interpreter = fx.Interpreter(self.core.graph_module, garbage_collect_values=False)
        for node in self.core.graph.nodes:
            if node.op == "placeholder" and node.name in given:
                interpreter.env[node] = given[node.name]
            elif node.op in ("get_attr", "call_function") and node not in self.activations:
                with torch.no_grad():
                    interpreter.env[node] = interpreter.run_node(node)
        return dict(interpreter.env)

    def _layer(self, name: str) -> SourceLayer:
        node: Any = self.nodes[name]
        operands = [node.args[p] for p in self.operands[name]]
        convolution = node.target is aten.convolution.default
        weights = self.weight_positions[name]
        axis = None if weights is None else 0 if convolution or node.target is aten.linear.default else -1
        if convolution and node.args[6]:  # transposed
            axis = None if weights is None else 1
        first = not convolution and weights is not None and weights < self.operands[name][0]
        axis = -2 if first else axis
        return SourceLayer(
            convolution,
            tuple(tuple(x.meta["val"].shape) for x in operands),
            tuple(_interiors(x) for x in operands),
            columns=node.target is not aten.linear.default,
            weight_axis=axis,
            weights_first=first,
        )

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
        # Copied, because PyTorch would warn about memory that it must not write to.
        tensors = [
            torch.from_numpy(as_input_array(v, spec).copy())
            for v, spec in zip(values, self.inputs, strict=True)
        ]
        run = _Run(self, injections or {}, wanted, replaced or {}, nudged or {}, double)
        with torch.no_grad():
            outputs = run.outputs(tensors)
            if injections is None and not replaced and not double:
                args, kwargs = pytree.tree_unflatten(tensors, self.in_spec)
                outputs = pytree.tree_leaves(self.model(*args, **kwargs))
        return ReferenceRun([_array(output) for output in outputs], run.layer_inputs, run.tensors)

    def weights(self, layer: str) -> np.ndarray:
        node: Any = self.nodes[layer]
        position = self.weight_positions[layer]
        assert position is not None
        return _array(self.constants[node.args[position]])

    def sums(self, layer: str, operands: tuple[np.ndarray, ...], weights: np.ndarray | None) -> np.ndarray:
        node: Any = self.nodes[layer]
        arrays = [*operands, *([] if weights is None else [weights])]
        axis = self.layers[layer].weight_axis or 0
        depth = operands[0].shape[-1] if weights is None else weights.size // weights.shape[axis]
        reach = depth * float(np.prod([np.abs(a.astype(np.int64)).max(initial=0) for a in arrays]))
        dtype = torch.float32 if reach < _EXACT_FLOAT32 else torch.float64
        args = list(node.args)
        for position, array in zip(self.operands[layer], operands, strict=True):
            args[position] = torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
        if weights is not None:
            args[self.weight_positions[layer]] = torch.from_numpy(np.ascontiguousarray(weights)).to(dtype)  # type: ignore[index]
        target = node.target
        if target is aten.convolution.default:
            args[2] = None
        elif target in (aten.addmm.default, aten.baddbmm.default):
            target, args = aten.matmul.default, args[1:]
        with torch.no_grad():
            return _array(target(*args[:2] if target is aten.linear.default else args))

    def decisions(self, layer: str, position: int) -> list[Decision]:
        node: Any = self.nodes[layer]
        return self._nearest(node.args[self.operands[layer][position]])

    def output_decisions(self, output: int) -> list[Decision]:
        names = {node.name: node for node in self.core.graph.nodes}
        return self._nearest(names[self.core.graph_signature.user_outputs[output]])

    def before(self, tensor: str) -> list[str]:
        [node] = (node for node in self.core.graph.nodes if node.name == tensor)
        values = {x.name: x.meta.get("val") for x in reached(node, self._sources)}
        return [name for name, x in values.items() if isinstance(x, torch.Tensor) and x.is_floating_point()]

    def _nearest(self, node: Any) -> list[Decision]:
        return nearest(node, self._decision, self._sources)

    def _sources(self, node: Any) -> list[fx.Node]:
        """The activations that it is computed from; of what a layer makes, none."""
        if node in self._layer_nodes:
            return []
        return [source for source in node.all_input_nodes if source in self.activations]

    def _decision(self, node: Any) -> Decision | None:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            return None
        name = node.target.overloadpacket.__name__
        kind = _DECISIONS.get(name)
        if name == "_to_copy":
            dtype = node.kwargs.get("dtype")
            if dtype and not dtype.is_floating_point and node.args[0].meta["val"].is_floating_point():
                kind = "zero" if dtype is torch.bool else "whole"
        if kind is None:
            return None
        x, other = (*node.args, None)[:2]
        if name not in _COMPARISONS:
            return Decision(kind, x.name) if x in self.activations else None
        if not isinstance(other, fx.Node):
            return Decision(kind, x.name, np.asarray(other))
        if tuple(x.meta["val"].shape) != tuple(node.meta["val"].shape) or x not in self.activations:
            x, other = other, x
        if other in self.activations:
            return Decision(kind, x.name, other.name)
        return Decision(kind, x.name, _array(self.constants[other]))


class _Run(fx.Interpreter):
    """One run of the decomposed program."""

    def __init__(
        self,
        reference: TorchReference,
        injections: Mapping[str, Injection],
        wanted: Collection[str],
        replaced: Mapping[str, np.ndarray],
        nudged: Mapping[str, np.ndarray],
        double: bool,
    ) -> None:
        super().__init__(reference.core.graph_module)
        self.reference, self.injections = reference, injections
        self.wanted, self.replaced, self.nudged, self.double = set(wanted), replaced, nudged, double
        self.names = {node: name for name, node in reference.nodes.items()}
        self.layer_inputs: dict[str, tuple[np.ndarray, ...]] = {}
        self.tensors: dict[str, np.ndarray] = {}

    def outputs(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        remaining = iter(inputs)
        arguments = [
            next(remaining) if node in self.reference.activations else self.reference.constants[node]
            for node in self.reference.core.graph.nodes
            if node.op == "placeholder"
        ]
        results = self.run(*arguments)
        nodes: Any = next(n for n in self.reference.core.graph.nodes if n.op == "output").args[0]
        by_name = {node.name: result for node, result in zip(nodes, results, strict=True) if node is not None}
        return [by_name[name] for name in self.reference.core.graph_signature.user_outputs]

    def run_node(self, node: Any) -> Any:
        reference = self.reference
        if node.op == "output":
            return super().run_node(node)
        if node not in reference.activations:
            result = reference.constants[node] if node.op != "placeholder" else super().run_node(node)
        elif node in self.names:
            result = self._run_layer(node, self.names[node])
        else:
            result = super().run_node(node)
        if self.double:
            result = pytree.tree_map(_widened, result)
        if node.name in self.replaced:
            result = torch.from_numpy(self.replaced[node.name].copy()).to(result.dtype)
        if node.name in self.wanted:
            self.tensors[node.name] = _array(result)
        if node.name in self.nudged:
            result = result * torch.from_numpy(self.nudged[node.name]).to(result.dtype)
        return result

    def _run_layer(self, node: Any, name: str) -> Any:
        given, kwargs = self.fetch_args_kwargs_from_env(node)
        args: list[Any] = list(given)
        positions = self.reference.operands[name]
        self.layer_inputs[name] = tuple(_array(args[p]) for p in positions)
        if injection := self.injections.get(name):
            arrays = dict(zip(positions, injection.operands, strict=True))
            if injection.weights is not None:
                arrays[self.reference.weight_positions[name]] = injection.weights  # type: ignore[index]
            for position, array in arrays.items():
                args[position] = torch.from_numpy(np.ascontiguousarray(array)).to(args[position].dtype)
        return self.call_function(node.target, tuple(args), kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if self.double:
            args, kwargs = pytree.tree_map(_widened, (args, kwargs))
        # What was put in place lies otherwise in memory than the program's own.
        if target is aten.view.default:
            target = aten.reshape.default
        return super().call_function(target, args, kwargs)


def _widened(value: Any) -> Any:
    """A floating tensor, or the name of a floating dtype, in float64."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _interiors(node: Any) -> tuple[Interior, ...]:
    found: list[Interior] = []
    starts = [0] * node.meta["val"].dim()
    while node.target is aten.constant_pad_nd.default:
        x, pads, value = (*node.args, 0)[:3]
        if value or min(pads) < 0:
            break
        for pair, before in enumerate(pads[::2]):
            starts[-1 - pair] += before
        shape = x.meta["val"].shape
        found.append(tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True)))
        node = x
    return tuple(found)
