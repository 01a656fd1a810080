"""What follows a concatenation of channels is computed part by part, up to where it is packed or sliced.

    pack(f(concat(a, b)))   ->  concat(pack(f(a)), pack(f(b)))      where a fills whole words
    slice(concat(a, b))     ->  a, b, or a slice of one

f works element by element, with numbers of each channel, or of other tensors with the same parts; or it
pools, or reduces rows and columns. So what computes a part writes the bits of it that each later layer reads,
and in a dense network, whose layers read all that was computed before them, neither the whole tensor nor its
slices are ever made. What still wants the whole gets it where the parts end.

Requires: channels last; packings of truths with halos of 0.
Ensures: a packing of what was concatenated is a concatenation of packings.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.operators import Pack, attributes_of, call
from relay_passes.ir.rewrite import (
    constant_value,
    dtype_of,
    is_call,
    is_constant,
    is_tensor,
    made_by,
    rewrite,
    shape_of,
)
from schedules.parts.epilogue import OPERATORS

_POOLS = ("relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d")
_REDUCTIONS = ("relax.mean", "relax.sum", "relax.max", "relax.min")

Parts = list[relax.Expr]


def split_concats(mod: tvm.IRModule) -> tvm.IRModule:
    parts: dict[relax.Var, Parts] = {}  # of what is, or might be, a concatenation along its last axis

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if not is_call(value):
            return value
        if is_call(value, "bibench.pack"):
            return _packed(builder, value, parts.get(value.args[0], []))
        made = _parts_of(builder, value, parts)
        if made is None:
            return value
        if len(made) == 1:
            return made[0]
        if dtype_of(var) != "bool":  # truths are compared as a whole, where their parts are no whole words
            value = relax.op.concat(made, len(shape_of(made[0])) - 1)
        whole = builder.emit(value)  # it vanishes where all that reads it reads its parts
        parts[whole] = made
        return whole

    return rewrite(mod, visit)


def _parts_of(builder: relax.BlockBuilder, value: relax.Call, parts: dict[relax.Var, Parts]) -> Parts | None:
    """The parts of what this computes; None where they are not those of what it reads."""
    name = value.op.name
    if name == "relax.concat":
        joined = made_by(builder, value.args[0])
        fields = list(joined.fields) if isinstance(joined, relax.Tuple) else []
        rank = len(shape_of(fields[0])) if fields else 0
        along = value.attrs.axis is not None and fields and int(value.attrs.axis) % rank == rank - 1
        return [part for field in fields for part in parts.get(field, [field])] if along else None
    if name in OPERATORS:
        return _elementwise(builder, value, parts)
    before = parts.get(value.args[0]) if value.args else None
    if before is None:
        return None
    if name == "relax.strided_slice":
        return _slice(builder, value, before)
    last = len(shape_of(value.args[0])) - 1
    axes = [int(axis) % (last + 1) for axis in value.attrs.axis or ()] if name in _REDUCTIONS else []
    of_channels = name in _POOLS and value.attrs.layout == "NHWC"
    if not of_channels and (not axes or last in axes):
        return None
    return [builder.emit(relax.Call(value.op, [part], value.attrs, value.ty_args)) for part in before]


def _elementwise(
    builder: relax.BlockBuilder, value: relax.Call, parts: dict[relax.Var, Parts]
) -> Parts | None:
    found = [parts.get(arg) if is_tensor(arg) and not is_constant(arg) else None for arg in value.args]
    splits = {tuple(shape_of(part)[-1] for part in own) for own in found if own}
    if len(splits) != 1:
        return None
    (split,) = splits
    columns: list[Parts] = []
    for arg, own in zip(value.args, found, strict=True):
        if own:
            columns.append(own)
        elif not is_tensor(arg) or not shape_of(arg) or shape_of(arg)[-1] == 1:
            columns.append([arg] * len(split))
        elif is_constant(arg):
            pieces = np.split(constant_value(arg), np.cumsum(split)[:-1], axis=-1)
            # relax.const makes int32 of int64 unless it is told.
            columns.append([relax.const(np.ascontiguousarray(piece), str(piece.dtype)) for piece in pieces])
        else:
            return None
    rows = zip(*columns, strict=True)
    return [builder.emit(relax.Call(value.op, list(row), value.attrs, value.ty_args)) for row in rows]


def _slice(builder: relax.BlockBuilder, value: relax.Call, before: Parts) -> Parts | None:
    """Of channels, one after the other."""
    axes, begin, end, *strides = ([int(each.value) for each in arg.fields] for arg in value.args[1:])
    shape = shape_of(value.args[0])
    if [axis % len(shape) for axis in axes] != [len(shape) - 1] or (strides and strides[0] != [1]):
        return None
    first, last = (min(max(at + shape[-1] * (at < 0), 0), shape[-1]) for at in (begin[0], end[0]))
    found: Parts = []
    start = 0
    for part in before:
        extent = shape_of(part)[-1]
        low, high = max(first - start, 0), min(last - start, extent)
        start += extent
        if low >= high:
            continue
        whole = (low, high) == (0, extent)
        cut = part if whole else builder.emit(relax.op.strided_slice(part, [len(shape) - 1], [low], [high]))
        found.append(cut)
    return found or None


def _packed(builder: relax.BlockBuilder, value: relax.Call, before: Parts) -> relax.Expr:
    pack = attributes_of(value, Pack)
    packing = pack.packing
    aligned = all(shape_of(part)[-1] % packing.word == 0 for part in before[:-1])
    if len(before) < 2 or not aligned or pack.planar or packing.groups > 1 or packing.quantizer:
        return value
    words = []
    for part in before:
        own = replace(packing, channels=shape_of(part)[-1])
        words.append(builder.emit(call("bibench.pack", part, attributes=Pack(packing=own))))
    return relax.op.concat(words, 3)
