"""Operands of float layers that are choices between constants: signs before a layer that stays float.

What such a layer makes of a number that falls on the other side of a threshold is another result altogether,
so whoever compares results has to know on which side it fell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from relay_passes.ir.layers import CONVOLUTIONS
from relay_passes.ir.moves import MOVES
from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import bindings, definitions, dtype_of, is_call, is_constant

_LAYERS = ("bibench.convolution", "bibench.matmul")
_CARRY = ("relax.multiply", "relax.add", "relax.subtract", "relax.nn.pad", "relax.concat", *MOVES)


@dataclass(frozen=True)
class Decided:
    """operand: the variable; channels_first: as the source has it, else its channels are last."""

    layer: str
    operand: relax.Var
    channels_first: bool


def decided_operands(mod: tvm.IRModule, others: Sequence[str]) -> list[Decided]:
    """others: the layers that are TVM's own operators, by name, in order."""
    defined = definitions(mod)
    own = [b.value for b in bindings(mod) if is_call(b.value, *CONVOLUTIONS)]
    names = others if len(others) == len(own) else ()
    found = [
        Decided(name, call.args[0], channels_first=str(call.attrs.data_layout)[1] == "C")
        for name, call in zip(names, own, strict=False)
    ]
    for binding in bindings(mod):
        if is_call(binding.value, *_LAYERS):
            name = attributes_of(binding.value, Contraction).name
            found.append(Decided(name, binding.value.args[0], channels_first=False))
    return [read for read in found if read.operand in defined and _is_decided(read.operand, defined)]


def _is_decided(expr: relax.Expr, defined: Mapping[relax.Var, relax.Expr]) -> bool:
    value: Any = defined.get(expr) if isinstance(expr, relax.Var) else None
    if is_call(value, "relax.where"):
        return all(map(is_constant, value.args[1:]))
    if is_call(value, "relax.astype"):
        return dtype_of(value.args[0]) == "bool"
    if is_call(value, *_CARRY):
        operands = value.args[0].fields if isinstance(value.args[0], relax.Tuple) else value.args
        read = [operand for operand in operands if isinstance(operand, relax.Var)]
        return bool(read) and all(_is_decided(operand, defined) for operand in read)
    return is_call(value, "relax.sign")
