"""PyTorch programs in other floating types than float32: rewritten to compute in it, or refused.

Half precision is computed in float32, which has every value of it; the inputs and outputs keep their type,
and are cast. float64 is computed so where somebody asks for it. What depends on parameters alone is left
as it is: PyTorch computes that in the type in which it was written.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from bibench_tvm.cli.errors import first_line
from bibench_tvm.importer.imported import ImportFailed
from bibench_tvm.importer.sentences import note_on_dtype, of_another_type, of_bfloat16, of_float64

aten = torch.ops.aten

_HALVES = (torch.float16, torch.bfloat16)
_COMPILED = {torch.float32, torch.bool} | {
    getattr(torch, f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
_CASTS = (aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default)
_REGIONS = {  # an operator that runs a graph in a mode -> the position of the graph among its arguments
    torch.ops.higher_order.wrap_with_autocast: 4,
    torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
}


def in_float32(program: ExportedProgram, name: str, *, asked: bool) -> tuple[ExportedProgram, list[str]]:
    """The program with static shapes, computing in float32, and notes for the user. Raises ImportFailed."""
    found: dict[torch.dtype, str] = {}  # dtype -> the first tensor that is of it
    for tensor, dtype in _activations(program):
        found.setdefault(dtype, tensor)
    for dtype, tensor in found.items():
        if dtype not in (*_COMPILED, *_HALVES, torch.float64):
            raise of_another_type(tensor, name, _spelled(dtype))
    if torch.float64 in found and not asked:
        raise of_float64(found[torch.float64], name)
    replaced = {dtype for dtype in found if dtype in (*_HALVES, torch.float64)}
    modes = any(node.target in _REGIONS for node in program.graph.nodes)
    if not replaced and not modes:
        return program, []
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    for key in (*signature.user_inputs, *signature.user_outputs):
        value = nodes[key].meta["val"] if key in nodes else None
        if isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16 and not asked:
            raise of_bfloat16(repr(key), name)
    notes = [note_on_dtype(sorted(map(_spelled, replaced)))] if replaced else []
    return _exported(_widened(program, replaced), program, name), notes


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _activations(program: ExportedProgram) -> Iterator[tuple[str, torch.dtype]]:
    """(name, dtype) of the tensors whose values depend on the inputs', and the types of autocast."""
    inputs = {
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and hasattr(spec.arg, "name")
    }
    known: set[fx.Node] = set()
    for node in program.graph.nodes:
        if not (node.op == "placeholder" and node.name in inputs) and known.isdisjoint(node.all_input_nodes):
            continue
        known.add(node)
        for value in pytree.tree_leaves(node.meta.get("val")):
            exact = isinstance(value, torch.Tensor) and value.dtype is torch.float64 and _is_only_cast(node)
            if isinstance(value, torch.Tensor) and not exact:
                yield _described(node), value.dtype
        if node.target is torch.ops.higher_order.wrap_with_autocast and node.args[2]:
            yield _described(node), node.args[1] or torch.get_autocast_dtype(node.args[0])


def _is_only_cast(node: Any) -> bool:
    """Whether this is an input or a cast, and nothing but casts reads it: no arithmetic is in its type."""
    readers = (u for u in node.users if u.target is not aten._assert_tensor_metadata.default)
    made = node.op == "placeholder" or node.target in _CASTS
    return made and all(user.op == "output" or user.target in _CASTS for user in readers)


def _described(node: Any) -> str:
    if node.op == "placeholder":
        return repr(node.name)
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return f"{node.name!r} (operator {node.target}" + (f" in module {path!r})" if path else ")")


def _widened(program: ExportedProgram, replaced: set[torch.dtype]) -> fx.GraphModule:
    """A module of its own: the one that was exported, which lives on, keeps its parameters."""
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    made: dict[int, torch.Tensor] = {}

    def wide(value: Any) -> Any:
        if isinstance(value, torch.dtype) and value in replaced:
            return torch.float32
        if not isinstance(value, torch.Tensor) or value.dtype not in replaced:
            return value
        if id(value) not in made:  # tied parameters stay one
            converted = value.detach().to(torch.float32)
            parameter = isinstance(value, torch.nn.Parameter)
            made[id(value)] = torch.nn.Parameter(converted, requires_grad=False) if parameter else converted
        return made[id(value)]

    for part in module.modules():
        for held in (part._parameters, part._buffers, vars(part)):
            for key, value in list(held.items()):
                held[key] = wide(value)
        if isinstance(part, fx.GraphModule):
            for node in list(part.graph.nodes):
                _widen_node(part.graph, node, wide)
    _cast_at_the_doors(module.graph, replaced)
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            part.graph.lint()
            part.recompile()
    return module


def _widen_node(graph: fx.Graph, node: Any, wide: Any) -> None:
    node.args = fx.node.map_aggregate(node.args, wide)
    node.kwargs = fx.node.map_aggregate(node.kwargs, wide)
    if node.target is aten._assert_tensor_metadata.default:
        graph.erase_node(node)
    elif node.target in _REGIONS:
        position = _REGIONS[node.target]
        inner, arguments = node.args[position], node.args[position + 1 :]
        with graph.inserting_before(node):
            call = graph.call_module(inner.target, arguments)
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        if not inner.users:
            graph.erase_node(inner)


def _cast_at_the_doors(graph: fx.Graph, replaced: set[torch.dtype]) -> None:
    nodes = list(graph.nodes)
    for node in nodes:
        if node.op == "placeholder" and _dtype_of(node) in replaced:
            users = list(node.users)
            with graph.inserting_after(node):
                cast = graph.call_function(aten.to.dtype, (node, torch.float32))
            for user in users:
                user.replace_input_with(node, cast)
    [output] = [node for node in nodes if node.op == "output"]

    def source_type(node: Any) -> Any:
        dtype = _dtype_of(node)
        if dtype not in replaced or dtype is torch.bfloat16:  # numpy has no such arrays to give
            return node
        with graph.inserting_before(output):
            return graph.call_function(aten.to.dtype, (node, dtype))

    output.args = fx.node.map_arg(output.args, source_type)


def _dtype_of(node: Any) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _exported(module: fx.GraphModule, source: ExportedProgram, name: str) -> ExportedProgram:
    nodes = {node.name: node for node in source.graph.nodes}
    leaves = []
    for key in source.graph_signature.user_inputs:
        meta = nodes[key].meta["val"] if isinstance(key, str) else key
        if isinstance(meta, torch.Tensor):
            dtype = torch.float32 if meta.dtype is torch.bfloat16 else meta.dtype
            meta = torch.zeros(tuple(meta.shape), dtype=dtype)
        leaves.append(meta)
    args, kwargs = pytree.tree_unflatten(leaves, source.call_spec.in_spec)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, args, kwargs, strict=False)
    except Exception as error:
        raise ImportFailed(
            f"{name} cannot be computed in float32: {first_line(error)} Export it from model.float()."
        ) from error
