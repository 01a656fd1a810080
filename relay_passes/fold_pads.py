"""A padding with zeros in front of a convolution becomes the convolution's own, which costs nothing."""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.operators import call
from relay_passes.rewrite import is_call, rewrite


def fold_pads(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "bibench.convolution"):
        return value
    padded = builder.lookup_binding(value.args[0]) if isinstance(value.args[0], relax.Var) else None
    if (
        not is_call(padded, "relax.nn.pad")
        or padded.attrs.pad_mode != "constant"
        or float(padded.attrs.pad_value) != 0
    ):
        return value
    n0, n1, top, bottom, left, right, c0, c1 = (int(p) for p in padded.attrs.pad_width)
    if any((n0, n1, c0, c1)) or min(top, bottom, left, right) < 0:
        return value
    attrs = {key: value.attrs[key] for key in ("name", "op", "kernel", "strides", "dilation", "groups")}
    own = [int(p) for p in value.attrs["padding"]]
    padding = [own[0] + top, own[1] + left, own[2] + bottom, own[3] + right]
    return call("bibench.convolution", padded.args[0], value.args[1], padding=padding, **attrs)
