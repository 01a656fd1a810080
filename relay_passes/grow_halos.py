"""Let what writes packed activations write them between the zeros that the convolutions reading them need.

The halo of a packed tensor is the widest padding of its readers; a reader with less starts further in. A
product of two activations reads none. An int8 convolution reads up to three bytes further than it needs.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.operators import call
from relay_passes.rewrite import bindings, is_call, rewrite

CONVOLUTIONS = ("bibench.binary_convolution", "bibench.int8_convolution")


def grow_halos(mod: tvm.IRModule) -> tvm.IRModule:
    halos: dict[relax.Var, list[int]] = {}
    for binding in bindings(mod):
        if is_call(binding.value, *CONVOLUTIONS):
            words = binding.value.args[0]
            padding = [int(p) for p in binding.value.attrs["padding"]]
            if is_call(binding.value, "bibench.int8_convolution"):
                padding[2] += _rows_after(binding.value, padding)
            halos[words] = [max(a, b) for a, b in zip(halos.get(words, [0] * 4), padding, strict=True)]
    grown: dict[relax.Expr, list[int]] = {}
    bare: dict[relax.Expr, relax.Expr] = {}

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if is_call(value, "bibench.pack") and var in halos:
            new = builder.emit(
                call("bibench.pack", *value.args, **{**dict(value.attrs.items()), "halo": halos[var]})
            )
            grown[new] = halos[var]
            bare[new] = builder.emit(value) if any(halos[var]) else new  # vanishes where nothing reads it
            return new
        if is_call(value, "bibench.binary_product"):
            return call(
                "bibench.binary_product", *(bare.get(a, a) for a in value.args), **dict(value.attrs.items())
            )
        if is_call(value, *CONVOLUTIONS):
            attrs = {**dict(value.attrs.items()), "halo": grown[value.args[0]]}
            return call(value.op.name, *value.args, **attrs)
        return value

    return rewrite(mod, visit)


def _rows_after(value: relax.Call, padding: list[int]) -> int:
    """Rows at the bottom for the bytes that are read behind the last run."""
    _, _, width, channels = (int(e) for e in value.attrs["in_shape"])
    row = (width + padding[1] + padding[3]) * channels
    return -(-int(value.attrs["bytes_after"]) // row)
