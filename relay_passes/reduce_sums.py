"""The largest over an image of what is computed of a layer's sums is computed of its largest sum.

    max(f(d))  ->  f(max(d))                          where f rises, per channel
    max(f(d))  ->  f(min(d))                          where it falls
    max(f(d))  ->  f(where(rises, max(d), min(d)))    where it does one here and one there

and min(f(d)) likewise. f is a chain as `sum_functions` has them, and nothing else reads what is on the way.
So f is computed of one pixel, and the kernel of the layer keeps its largest sums and never writes the image:
a PointNet takes the largest of a thousand features over as many points.

Requires: what `find_binary` leaves.
Ensures: the same values, bit for bit.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.extremes import extreme_of_pixels
from relay_passes.ir.moves import RESHAPES
from relay_passes.ir.rewrite import (
    Env,
    bindings,
    definitions,
    is_call,
    made_by,
    read_vars,
    rewrite,
    shape_of,
    substitute,
    users,
)
from relay_passes.ir.sum_functions import chain_of, falls, overflows, reach_of


def reduce_sums(mod: tvm.IRModule) -> tvm.IRModule:
    order, defined, readers = bindings(mod), definitions(mod), users(mod)
    results = set(read_vars(mod["main"].body.body))

    def between(reduction: relax.Var) -> list[relax.VarBinding]:
        """The layer, and what is computed of it alone and for this alone, in order; empty for any other."""
        found, waiting = {reduction}, read_vars(defined[reduction])
        while waiting:
            var = waiting.pop()
            if var not in defined:
                return []
            if var not in found and not is_call(defined[var], "bibench.binary_convolution"):
                waiting += read_vars(defined[var])
            found.add(var)
        inner = found - {reduction}
        if inner & results or any(reader.var not in found for var in inner for reader in readers[var]):
            return []
        return [binding for binding in order if binding.var in inner]

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        largest = is_call(value, "relax.max", "relax.nn.max_pool2d")
        found = _reduced(builder, value)
        if found is None:
            return value
        x, axes = found
        sums, links = chain_of(builder, x)

        def extreme(largest: bool) -> relax.Expr:
            return (relax.op.max if largest else relax.op.min)(sums, axes, keepdims=True)

        made, channels = made_by(builder, sums), shape_of(sums)[-1]
        if not links or any(link.dips for link in links) or not extreme_of_pixels(extreme(largest), made):
            return value
        reach = reach_of(made)
        layer, *steps = between(var) or [None]
        if layer is None or overflows(links, channels, reach):
            return value
        wanted = falls(links, channels, reach) != largest
        if wanted.all() or not wanted.any():
            reduced = builder.emit(extreme(bool(wanted.all())))
        else:
            ends = [builder.emit(extreme(which)) for which in (True, False)]
            reduced = builder.emit(relax.op.where(relax.const(wanted), *ends))
        env: Env = {layer.var: reduced}
        for step in steps:
            if not is_call(step.value, *RESHAPES):
                reduced = builder.emit(substitute(step.value, env))
            env[step.var] = reduced
        return relax.op.reshape(reduced, shape_of(var)) if shape_of(reduced) != shape_of(var) else reduced

    return rewrite(mod, visit)


def _reduced(builder: relax.BlockBuilder, value: relax.Expr) -> tuple[relax.Expr, list[int]] | None:
    """(tensor, axes) that this is the largest or the smallest of: over an image, before it was reshaped."""
    if is_call(value, "relax.max", "relax.min") and value.attrs.axis is not None:
        x = value.args[0]
        axes = sorted(int(axis) % len(shape_of(x)) for axis in value.attrs.axis)
    elif is_call(value, "relax.nn.max_pool2d") and _sees_all(value):
        x, axes = value.args[0], [1, 2]
    else:
        return None
    while axes == list(range(1, len(shape_of(x)) - 1)):
        reshape = made_by(builder, x)
        if not is_call(reshape, *RESHAPES):
            break
        (batch, *_, channels), before = shape_of(x), shape_of(reshape.args[0])
        if len(before) < 3 or (before[0], before[-1]) != (batch, channels):
            break
        x, axes = reshape.args[0], list(range(1, len(before) - 1))
    return x, axes


def _sees_all(pool: relax.Call) -> bool:
    """Whether a pool has one window, the image."""
    attrs = pool.attrs
    window, padding = ([int(n) for n in numbers] for numbers in (attrs.pool_size, attrs.padding))
    return attrs.layout == "NHWC" and window == [*shape_of(pool.args[0])[1:3]] and not any(padding)
