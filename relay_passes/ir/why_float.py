"""Why an activation is not binary, in words: the operator that is in the way, by name."""

from __future__ import annotations

from collections.abc import Collection

from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.moves import moved_from
from relay_passes.ir.rewrite import is_call, made_by, number
from relay_passes.ir.step_functions import Values
from relay_passes.ir.transfers.operands import fields
from relay_passes.ir.two_valued import few_values, steps_of, two_values


def why_not(
    builder: relax.BlockBuilder, x: relax.Expr, numbers: BoundValues, inputs: Collection[relax.Var]
) -> str:
    """What is in the way of two values, as the end of a sentence. inputs: of the network."""
    if (found := two_values(builder, x, numbers)) is not None:
        return f"two-valued, {found.low:g} and {found.high:g}"
    if isinstance(other := steps_of(builder, x, numbers), Values):
        by = made_by(builder, x).op.name.removeprefix("relax.")
        taken = [f"{value + 0.0:g}" for value in other.found[:4]]
        if len(taken) < 2:
            return f"not binary: it comes from {by}, and takes the value {taken[0]} alone"
        more = " and others" if len(other.found) > 4 else ""
        listed = f"{', '.join(taken[:-1])} and {taken[-1]}"
        return f"not binary: it comes from {by}, and takes the values {listed}{more}"
    made = made_by(builder, x)
    if (scaled := _scaled_and_moved(builder, made, numbers, inputs)) is not None:
        return why_not(builder, scaled, numbers, inputs)
    if isinstance(made, relax.TupleGetItem) and moved_from(builder, made) is None:
        made = made_by(builder, made.tuple_value)
    name = made.op.name.removeprefix("relax.").removeprefix("nn.") if is_call(made) else "a constant"
    name = name.removeprefix("bibench.")
    if is_call(made, "relax.call_tir"):
        name = made.args[0].name_hint  # an operator that TVM's frontend writes as a loop nest
    if (source := moved_from(builder, made)) is not None:
        return why_not(builder, source, numbers, inputs)
    if x in inputs:
        return "the network's input, which is not binary"
    if is_call(made, "relax.nn.pad") and two_values(builder, made.args[0], numbers):
        value = float(made.attrs.pad_value)
        return f"not binary: it is padded with {value:g}, which is none of the two values of what it pads"
    if is_call(made, "relax.concat", "relax.stack"):
        parts = fields(builder, made.args[0])
        of_parts = [two_values(builder, part, numbers) for part in parts]
        if None in of_parts:
            one = why_not(builder, parts[of_parts.index(None)], numbers, inputs)
            return f"not binary: it comes from {name}, one part of which is {one}"
        pairs = dict.fromkeys(f"{v.low:g} and {v.high:g}" for v in of_parts if v)
        return f"not binary: it comes from concat, whose parts take different values: {'; '.join(pairs)}"
    return f"not binary: it comes from {name}, not from a sign"


def _scaled_and_moved(
    builder: relax.BlockBuilder, made: relax.Expr, numbers: BoundValues, inputs: Collection[relax.Var]
) -> relax.Expr | None:
    """What was cast, or arithmetic with numbers was done to, where that is computed and is in the way."""
    arithmetic = "relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.astype"
    if not is_call(made, *arithmetic):
        return None
    computed = [arg for arg in made.args if number(arg) is None]
    if len(computed) != 1 or computed[0] in inputs or not is_call(made_by(builder, computed[0])):
        return None
    few = few_values(builder, computed[0], numbers)
    return computed[0] if few is None else None
