"""What of a PyTorch program depends on parameters alone, computed by PyTorch itself."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from bibench_tvm.importer.limits import refuse_growth

Values = dict[fx.Node, Any]


def folded(program: ExportedProgram, name: str) -> tuple[Values, dict[fx.Node, set[str]]]:
    """The value of each node that depends on parameters alone, and the parameters that it depends on.

    Raises ImportFailed where the values would fill the memory.
    """
    values: Values = {}
    origins: dict[fx.Node, set[str]] = {}
    constants = constant_values(program)
    given = sum(value.numel() * value.element_size() for value in constants.values())
    grown = 0
    interpreter = fx.Interpreter(program.graph_module, garbage_collect_values=False)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in constants:
            values[node] = constants[node.name]
            origins[node] = {node.name}
        elif node.op == "get_attr":
            values[node] = operator.attrgetter(str(node.target))(program.graph_module)
            origins[node] = set()
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            grown += _size_of(node)
            refuse_growth(f"The constant {node.name!r}", grown, given, name)
            interpreter.env = values
            with torch.no_grad():
                values[node] = interpreter.run_node(node)
            origins[node] = set().union(*(origins[s] for s in node.all_input_nodes))
    return values, origins


def has_infinities(program: ExportedProgram, values: Values) -> bool:
    """Whether a constant or an argument is infinite, as masks are."""
    tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
    numbers = [a for node in program.graph.nodes for a in pytree.tree_leaves(node.args)]
    return any(t.is_floating_point() and bool(torch.isinf(t).any()) for t in tensors) or any(
        isinstance(number, float) and math.isinf(number) for number in numbers
    )


def constant_values(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Placeholder name -> value, for all placeholders that are not inputs of the user."""
    values = {**program.state_dict, **program.constants}
    return {
        spec.arg.name: values[spec.target].detach()
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT
    }


def _size_of(node: Any) -> int:
    """Bytes of the tensors that a node makes."""
    made = pytree.tree_leaves(node.meta.get("val"))
    return sum(t.numel() * t.element_size() for t in made if isinstance(t, torch.Tensor))
