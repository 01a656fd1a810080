"""Operators that move elements to other places, or leave some out, and compute nothing."""

from __future__ import annotations

from typing import Any

from tvm import relax

from relay_passes.ir.rewrite import is_call, made_by

RESHAPES = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten")
MOVES = {
    *RESHAPES, "relax.permute_dims",
    "relax.strided_slice", "relax.broadcast_to", "relax.nn.max_pool2d", "relax.nn.max_pool1d",
    "relax.take", "relax.flip", "relax.tile", "relax.repeat", "relax.roll", "relax.nn.pixel_shuffle",
    "relax.gather_elements", "relax.gather_nd", "relax.index_tensor", "relax.dynamic_strided_slice",
    "relax.max", "relax.min", "relax.nn.max_pool3d", "relax.nn.adaptive_max_pool2d", "relax.sort",
}  # fmt: skip

WRITES = {
    "relax.scatter_nd": 2, "relax.scatter_elements": 2, "relax.index_put": 2, "relax.slice_scatter": 1,
}  # fmt: skip
"""Which put one operand into places of their first: that operand's position."""


def replaces(value: relax.Call) -> bool:
    accumulates = bool(getattr(value.attrs, "accumulate", False))
    return str(getattr(value.attrs, "reduction", "update")) == "update" and not accumulates


def moved_from(builder: relax.BlockBuilder, value: Any) -> relax.Expr | None:
    """The tensor whose elements these are, in other places; None where it is not made so."""
    if isinstance(value, relax.TupleGetItem):
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return made.fields[value.index]
        if is_call(made, "relax.topk"):  # with the numbers, their places
            return made.args[0] if value.index == 0 and str(made.attrs.ret_type) != "indices" else None
        return made.args[0] if is_call(made, "relax.split") else None
    if not is_call(value):
        return None
    if value.op.name == "relax.image.resize2d":
        return value.args[0] if "nearest" in str(value.attrs.method) else None
    if value.op.name == "relax.nn.pad":
        crops = all(int(width) <= 0 for width in value.attrs.pad_width)
        return value.args[0] if crops or str(value.attrs.pad_mode) != "constant" else None
    return value.args[0] if value.op.name in MOVES else None
