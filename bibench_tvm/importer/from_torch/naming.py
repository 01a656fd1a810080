"""Where in a PyTorch network an operator stands, and what a layer is called: by the path of its module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from bibench_tvm.importer.naming import numbered

aten = torch.ops.aten

# Layer operator of the decomposed program -> the positions of its two operands.
LAYER_OPERANDS = {
    aten.convolution.default: (0, 1),
    aten.linear.default: (0, 1),
    aten.matmul.default: (0, 1),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
}


def layer_names(
    program: ExportedProgram, constants: Collection[fx.Node], origins: Mapping[fx.Node, set[str]]
) -> dict[fx.Node, str]:
    """A unique name for each layer: the path of its module, and the operator where that is ambiguous.

    constants: the nodes that depend on parameters alone; origins: of these, the parameters.
    """
    layers = [n for n in program.graph.nodes if n.target in LAYER_OPERANDS and n not in constants]
    parameter_paths = {
        spec.arg.name: spec.target.rpartition(".")[0]
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.PARAMETER
    }

    def owns_weight(node: Any) -> bool:
        weight = node.args[LAYER_OPERANDS[node.target][1]]
        return any(parameter_paths.get(p) == _module_path(node) for p in origins.get(weight, ()))

    per_path = Counter(_module_path(node) for node in layers)
    names: dict[fx.Node, str] = {}
    taken: Counter[str] = Counter()
    for node in layers:
        path = _module_path(node)
        # XNOR-Net's convolution of |x| runs in the same module as the binary one, which keeps the name.
        if not path or not (per_path[path] == 1 or owns_weight(node)):
            path = f"{path}.{node.target.__name__.partition('.')[0]}".lstrip(".")
        names[node] = numbered(path, taken)
    return names


def where(node: Any) -> str:
    path = _module_path(node)
    return f"node {node.name!r}" + (f" in module {path!r}" if path else "")


def _module_path(node: Any) -> str:
    """Path of the innermost module that the node came from, empty for the outermost module."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return path.partition("@")[0]  # the second call of a module is "conv@1"
