"""The bits of a two-valued activation: where it has the higher of its values."""

from __future__ import annotations

from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.permutations import order_of, permuted_at_once
from relay_passes.ir.rewrite import constant_value, dtype_of, is_call, is_constant, made_by, number, shape_of
from relay_passes.ir.step_comparisons import emit_truth
from relay_passes.ir.two_valued import TwoValued, image, judged, multiplied, two_values, values_of

_ARITHMETIC = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.negative"}


def truth(
    builder: relax.BlockBuilder, expr: relax.Expr, values: TwoValued, numbers: BoundValues
) -> relax.Expr:
    """A bool tensor, true where a two-valued activation has the higher of its values."""
    value = made_by(builder, expr)
    name = value.op.name if is_call(value) else ""
    if (steps := judged(builder, expr, numbers)[1]) is not None:
        return emit_truth(builder, steps)
    if name == "relax.where":
        condition, *branches = value.args
        if shape_of(condition) != shape_of(expr):
            condition = builder.emit(relax.op.broadcast_to(condition, shape_of(expr)))
        truths = []
        for branch in branches:
            own = values_of(builder, branch, numbers)
            one = truth(builder, branch, own, numbers) if isinstance(own, TwoValued) else own == values.high
            truths.append(relax.const(one) if isinstance(one, bool) else one)
        if all(map(is_constant, truths)):
            return condition if constant_value(truths[0]) else opposite(builder, condition)
        return builder.emit(relax.op.where(condition, *truths))
    if name == "relax.sign":
        compare = relax.op.greater if values.low == 0 else relax.op.greater_equal
        return builder.emit(compare(value.args[0], relax.const(0, dtype_of(value.args[0]))))
    if name == "relax.astype" and dtype_of(value.args[0]) == "bool":
        return value.args[0]
    if name in ("relax.permute_dims", "relax.reshape"):
        bits = truth(builder, value.args[0], values, numbers)
        if name == "relax.permute_dims":
            return permuted_at_once(builder, bits, order_of(value))
        return builder.emit(relax.op.reshape(bits, shape_of(expr)))
    if name in _ARITHMETIC:
        computed = [arg for arg in value.args if number(arg) is None]
        known = [of for arg in computed if (of := two_values(builder, arg, numbers)) is not None]
        if len(known) == 2 and name == "relax.multiply" and multiplied(*known) is not None:
            highs = [truth(builder, arg, of, numbers) for arg, of in zip(computed, known, strict=True)]
            if values.low < 0 < values.high:
                return opposite(builder, builder.emit(relax.op.logical_xor(*highs)))
            not_zero = [
                opposite(builder, high) if of.high == 0.0 else high
                for high, of in zip(highs, known, strict=True)
            ]
            met = builder.emit(relax.op.logical_and(*not_zero))
            return opposite(builder, met) if values.high == 0.0 else met
        if len(computed) == len(known) == 1 and shape_of(computed[0]) == shape_of(expr):
            higher = truth(builder, computed[0], known[0], numbers)
            return higher if _rises(value, known[0]) else opposite(builder, higher)
    middle = relax.const((values.low + values.high) / 2, "float32")
    return builder.emit(relax.op.greater_equal(expr, middle))  # equal: moved from a `sign` of 0, which is +1


def opposite(builder: relax.BlockBuilder, condition: relax.Expr) -> relax.Expr:
    return builder.emit(relax.op.logical_not(condition))


def _rises(value: relax.Call, of: TwoValued) -> bool:
    return bool(image(value, of.high) > image(value, of.low))
