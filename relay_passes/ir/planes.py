"""Activations of a few values, as sums of two-valued ones: so many planes of bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.rewrite import is_call, is_constant, made_by, shape_of
from relay_passes.ir.subset_sums import NOTHING, codes_of, subset_sums
from relay_passes.ir.truth import opposite, truth
from relay_passes.ir.two_valued import TwoValued, few_values, two_values

MANY_PLANES = 5
"""Of what is written as a sum of signs."""
_MANY_BY_VALUE = 3  # of what takes the values of such a sum, which are 8


@dataclass(frozen=True)
class Plane(TwoValued):
    """One of the two-valued tensors whose sum an activation is; bits: of the activation, or of the same
    elements in another order, where this one has its higher value; index: from 1."""

    index: int = 1
    bits: Callable[[relax.Expr], relax.Expr] = lambda x: x


@dataclass(frozen=True)
class Planes:
    """An activation that is the sum of its parts; values: those that it may take, in order; moved: see
    `TwoValued`."""

    parts: tuple[Plane, ...]
    values: tuple[float, ...]
    moved: float | None = None


def planes_of(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Planes | None:
    """Of an activation of a few values that a few bits add up to; else None.

    It is a sum of two-valued tensors, or takes the values of such a sum: 2 bits are two planes, of which one
    weighs twice as much.
    """
    if summed := _summed(builder, expr, numbers):
        return summed
    few = few_values(builder, expr, numbers)
    if few is None or (found := subset_sums(few.found, _MANY_BY_VALUE)) is None:
        return None
    (base, scales), values = found, few.found
    signs = codes_of(values, base, scales)
    parts = []
    for i, scale in enumerate(scales):
        middle = base if i == 0 else 0.0
        parts.append(
            Plane(
                middle - scale,
                middle + scale,
                index=i + 1,
                bits=partial(_among, builder, values, (signs[:, i] > 0).tolist()),
            )
        )
    return Planes(tuple(_from_zero(parts)), values, few.moved)


def _from_zero(parts: list[Plane]) -> list[Plane]:
    """The same sum of parts that are 0 or another number each, where that is what it is: they need no
    correction at borders."""
    least = sum(part.low for part in parts)
    largest = max(part.high - part.low for part in parts)
    if abs(least) > NOTHING * largest:
        return parts
    return [replace(part, low=0.0, high=part.high - part.low) for part in parts]


def _among(
    builder: relax.BlockBuilder, values: Sequence[float], chosen: Sequence[bool], x: relax.Expr
) -> relax.Expr:
    """Where x is one of the values that are chosen; values: in order, all that x takes."""
    found: relax.Expr | None = None
    for below, above, before, after in zip(values, values[1:], chosen, chosen[1:], strict=False):
        if before != after:
            middle = relax.const((below + above) / 2, "float32")
            beyond = builder.emit(relax.op.greater_equal(x, middle))
            found = beyond if found is None else builder.emit(relax.op.logical_xor(found, beyond))
    assert found is not None
    return opposite(builder, found) if chosen[0] else found


def _summed(builder: relax.BlockBuilder, expr: relax.Expr, numbers: BoundValues) -> Planes | None:
    """Of a sum or difference of two-valued tensors, as it is written."""
    terms, pending = [], [(expr, 1)]
    while pending:
        term, sign = pending.pop()
        made = made_by(builder, term)
        if (own := two_values(builder, term, numbers)) is not None and own.moved is None and not own.accident:
            terms.append((term, own, sign))
        elif is_call(made, "relax.add", "relax.subtract") and all(
            not is_constant(arg) and shape_of(arg) == shape_of(expr) for arg in made.args
        ):
            turned = -sign if made.op.name == "relax.subtract" else sign
            pending += [(made.args[1], turned), (made.args[0], sign)]
        else:
            return None
        if len(terms) > MANY_PLANES:
            return None
    if len(terms) < 2:
        return None

    def bits(term: relax.Expr, own: TwoValued, sign: int) -> Callable[[relax.Expr], relax.Expr]:
        def make(x: relax.Expr) -> relax.Expr:
            higher = truth(builder, term, own, numbers)
            return higher if sign > 0 else opposite(builder, higher)

        return make

    parts = []
    for i, (term, own, sign) in enumerate(terms):
        low, high = sorted((sign * own.low, sign * own.high))
        parts.append(Plane(low, high, index=i + 1, bits=bits(term, own, sign)))
    sums = {sum(pick) for pick in product(*((part.low, part.high) for part in parts))}
    return Planes(tuple(parts), tuple(sorted(sums)))
