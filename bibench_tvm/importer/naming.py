"""The names that layers have for the user, each once in a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import tvm
from tvm import relax

from relay_passes.ir.layers import LAYERS


def numbered(name: str, taken: Counter[str]) -> str:
    """The name, with its number where it is not the first of that name: conv, conv#2. Adds it to `taken`."""
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}#{taken[name]}"


def layer_variables(module: tvm.IRModule) -> list[str]:
    """The names of the variables of `main` bound to a layer, in order."""
    names = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = getattr(binding, "value", None)
            if isinstance(value, relax.Call) and getattr(value.op, "name", None) in LAYERS:
                names.append(binding.var.name)
    return names


def layer_variable(
    builder: relax.BlockBuilder, made: relax.Expr, operands: Iterable[relax.Expr]
) -> str | None:
    """The name of the variable bound to the layer of which an importer made this, behind a bias or reshape.

    operands: where the search ends. None where there is no layer between.
    """
    stops = {operand.name for operand in operands if isinstance(operand, relax.Var)}
    pending = [made]
    while pending:
        expr = pending.pop()
        if not isinstance(expr, relax.Var) or expr.name in stops:
            continue
        value = builder.lookup_binding(expr)
        if isinstance(value, relax.Call):
            if value.op.name in LAYERS:
                return expr.name
            pending.extend(value.args)
    return None
