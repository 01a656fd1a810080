"""Let what writes packed activations write them between the zeros that the convolutions reading them need.

The halo of a packed tensor is the widest padding of its readers; a reader with less starts further in. A
product of two activations reads none. An int8 convolution reads up to three bytes further than it needs. Each
part of what is packed in parts has the halo of the whole.

Requires: halos of 0.
Ensures: a packed tensor has the widest halo of its readers, and each reader says the same one.
"""

from __future__ import annotations

from dataclasses import replace

import tvm
from tvm import relax

from relay_passes.ir.operators import Int8Convolution, Pack, PackedContraction, attributes_of, call
from relay_passes.ir.rewrite import bindings, is_call, made_by, rewrite

_CONVOLUTIONS = ("bibench.binary_convolution", "bibench.int8_convolution")
Halo = tuple[int, int, int, int]


def grow_halos(mod: tvm.IRModule) -> tvm.IRModule:
    halos: dict[relax.Var, Halo] = {}
    for binding in bindings(mod):
        if is_call(binding.value, *_CONVOLUTIONS):
            words = binding.value.args[0]
            halos[words] = _widest(halos.get(words, (0, 0, 0, 0)), _read_halo(binding.value))
    grown: dict[relax.Expr, Halo] = {}
    bare: dict[relax.Expr, relax.Expr] = {}

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if var in halos:
            new = builder.emit(_with_halo(builder, value, halos[var]))
            grown[new] = halos[var]
            bare[new] = builder.emit(value) if any(halos[var]) else new  # vanishes where nothing reads it
            return new
        if is_call(value, "bibench.binary_product", "bibench.sign_sums"):
            return relax.Call(value.op, [bare.get(a, a) for a in value.args], value.attrs)
        if is_call(value, *_CONVOLUTIONS):
            layer = attributes_of(value, PackedContraction)
            layer = replace(layer, packing=replace(layer.packing, halo=grown[value.args[0]]))
            return call(value.op.name, *value.args, attributes=layer)
        return value

    return rewrite(mod, visit)


def _with_halo(builder: relax.BlockBuilder, value: relax.Call, halo: Halo) -> relax.Call:
    """A packing, a concatenation of channels, or words that were moved, which are copied into their halo."""
    if is_call(value, "bibench.pack"):
        pack = attributes_of(value, Pack)
        packing = replace(pack.packing, halo=halo)
        return call("bibench.pack", *value.args, attributes=replace(pack, packing=packing))
    if is_call(value, "relax.concat") and int(value.attrs.axis) == 3:
        parts = [made_by(builder, part) for part in value.args[0].fields]
        return relax.op.concat([builder.emit(_with_halo(builder, part, halo)) for part in parts], 3)
    if not any(halo):
        return value
    top, left, bottom, right = halo
    return relax.op.nn.pad(builder.emit(value), [0, 0, top, bottom, left, right, 0, 0])


def _widest(one: Halo, other: Halo) -> Halo:
    top, left, bottom, right = map(max, one, other)
    return top, left, bottom, right


def _read_halo(value: relax.Call) -> Halo:
    """The padding, and rows at the bottom for the bytes that an int8 kernel reads behind the last run."""
    layer = attributes_of(value, PackedContraction)
    top, left, bottom, right = layer.conv.padding
    if isinstance(layer, Int8Convolution):
        row = (layer.conv.width + left + right) * layer.conv.channels
        bottom += -(-layer.bytes_after // row)
    return top, left, bottom, right
