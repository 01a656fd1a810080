"""Which numbers a tensor can hold, and whether 0 is one of them by chance or as a matter of course.

A tensor holds numbers in [low, high] of three kinds:

- `common`: numbers that it takes as a rule, each at many elements: what a rectifier clips to, a padding, the
  sums of signs. They are lattices, offset + step * integer; a step of 0 is the offset alone.
- `accidental`: numbers that it takes only where a float happened to be exactly something: the sign of 0.
- `continuous`: any other number, none of which is hit but by accident.

So 0 is common where it lies on a common lattice, accidental where it lies on an accidental one or the tensor
is continuous, and absent otherwise. All bounds, steps and offsets are float64 arrays that broadcast against
the tensor, since each channel has its own scale and shift; a lattice with an offset of NaN is absent there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

Array = np.ndarray
_MANY = 6
"""More lattices than this are taken together as one, which holds all of their numbers."""


class Zero(enum.Enum):
    """Whether a tensor is exactly 0: never, by an accident of floats, or as a matter of course."""

    ABSENT = "absent"
    ACCIDENTAL = "accidental"
    COMMON = "common"


@dataclass(frozen=True)
class Lattice:
    """offset + step * integer; cause: why the tensor takes these numbers, as the subject of a sentence."""

    step: Array
    offset: Array
    cause: str

    def holds_zero(self) -> Array:
        """Where 0 lies on the lattice, but for rounding in float32."""
        with np.errstate(all="ignore"):
            position = -self.offset / self.step
            near = np.abs(position - np.rint(position)) <= 2.0**-23 * np.abs(position)
        return np.where(self.step == 0, self.offset == 0, near)


@dataclass(frozen=True)
class ValueRange:
    """See the top of the file. Bounds count numbers of every kind."""

    low: Array
    high: Array
    common: tuple[Lattice, ...] = ()
    accidental: tuple[Lattice, ...] = ()
    continuous: bool = True

    @property
    def not_negative(self) -> bool:
        return bool((self.low >= 0).all())

    @property
    def not_positive(self) -> bool:
        return bool((self.high <= 0).all())

    def zero_cause(self) -> str | None:
        """Why 0 is common; None where it is not."""
        within = (self.low <= 0) & (self.high >= 0)
        nearest = reversed(self.common)  # what an operator added comes last
        causes = (x.cause for x in nearest if (x.holds_zero() & within).any())
        constant = "a constant" if ((self.low == 0) & (self.high == 0)).any() else None
        return next(causes, constant)

    @property
    def zero(self) -> Zero:
        within = (self.low <= 0) & (self.high >= 0)
        if self.zero_cause() is not None:
            return Zero.COMMON
        chance = self.continuous or any((lattice.holds_zero() & within).any() for lattice in self.accidental)
        return Zero.ACCIDENTAL if chance and within.any() else Zero.ABSENT

    def map_arrays(self, change: Callable[[Array], Array]) -> ValueRange:
        """The same numbers elsewhere: a reshape, a transposition, a slice of all arrays."""

        def moved(lattices: Iterable[Lattice]) -> tuple[Lattice, ...]:
            return tuple(replace(x, step=change(x.step), offset=change(x.offset)) for x in lattices)

        return replace(
            self,
            low=change(self.low),
            high=change(self.high),
            common=moved(self.common),
            accidental=moved(self.accidental),
        )


def array(value: float | Array) -> Array:
    return np.asarray(value, np.float64)


def point(value: float | Array, cause: str) -> Lattice:
    return Lattice(array(0), array(value), cause)


def interval(low: float | Array, high: float | Array) -> ValueRange:
    """Numbers of no kind in particular."""
    return ValueRange(array(low), array(high))


def lattice(
    low: float | Array, high: float | Array, step: float | Array, offset: float | Array, cause: str
) -> ValueRange:
    """Numbers of one lattice and no others."""
    return ValueRange(array(low), array(high), (Lattice(array(step), array(offset), cause),), (), False)


def times(a: Array, b: Array) -> Array:
    """A product of bounds: 0 times infinity is 0."""
    with np.errstate(invalid="ignore"):
        return np.where((a == 0) | (b == 0), 0.0, a * b)


def affine(x: ValueRange, factor: Array, shift: Array) -> ValueRange:
    """x * factor + shift."""

    def moved(lattices: Iterable[Lattice]) -> tuple[Lattice, ...]:
        return tuple(Lattice(s.step * factor, s.offset * factor + shift, s.cause) for s in lattices)

    ends = times(x.low, factor) + shift, times(x.high, factor) + shift
    common = moved(x.common)
    if x.continuous and (gone := factor == 0).any():
        common = (*common, point(np.where(gone, shift, np.nan), "a factor of 0"))
    return ValueRange(np.minimum(*ends), np.maximum(*ends), common, moved(x.accidental), x.continuous)


def union(parts: Sequence[ValueRange]) -> ValueRange:
    """Numbers of any of these tensors, element by element."""
    low, high = parts[0].low, parts[0].high
    for part in parts[1:]:
        low, high = np.minimum(low, part.low), np.maximum(high, part.high)
    common = _fewer([x for part in parts for x in part.common])
    accidental = _fewer([x for part in parts for x in part.accidental])
    return ValueRange(low, high, common, accidental, any(part.continuous for part in parts))


def total(a: ValueRange, b: ValueRange) -> ValueRange:
    """a + b, element by element. Two things that happen as a rule happen together as a rule."""
    pairs = [_sum(x, y) for x in a.common for y in b.common]
    chance = a.continuous or b.continuous or bool(a.accidental or b.accidental)
    return ValueRange(a.low + b.low, a.high + b.high, _fewer(pairs), (), chance)


def product(a: ValueRange, b: ValueRange) -> ValueRange:
    """a * b, element by element."""
    ends = [times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = np.minimum.reduce(np.broadcast_arrays(*ends)), np.maximum.reduce(np.broadcast_arrays(*ends))
    common = [_product(x, y) for x in a.common for y in b.common]
    for one, other in ((a, b), (b, a)):
        if other.continuous or other.accidental:
            common += [
                point(np.where(x.holds_zero(), 0.0, np.nan), x.cause)
                for x in one.common
                if x.holds_zero().any()
            ]
    accidental = [
        point(np.where(x.holds_zero(), 0.0, np.nan), x.cause) for x in (*a.accidental, *b.accidental)
    ]
    return ValueRange(low, high, _fewer(common), tuple(accidental), a.continuous or b.continuous)


def image(
    x: ValueRange, function: Callable[[Array], Array], low: float | Array, high: float | Array
) -> ValueRange:
    """function(x) within [low, high], for a function that is not affine.

    Single numbers have an image. Of a lattice with a step the one number that is followed is 0.
    """

    def moved(lattices: Iterable[Lattice]) -> tuple[Lattice, ...]:
        with np.errstate(all="ignore"):
            kept = [np.where(s.step == 0, s.offset, np.where(s.holds_zero(), 0.0, np.nan)) for s in lattices]
            return tuple(point(function(at), s.cause) for at, s in zip(kept, lattices, strict=True))

    stepped = any((x.step != 0).any() for x in (*x.common, *x.accidental))
    return ValueRange(array(low), array(high), moved(x.common), moved(x.accidental), x.continuous or stepped)


def clipped(x: ValueRange, low: float | Array, high: float | Array, cause: str) -> ValueRange:
    """min(max(x, low), high)."""
    low, high = array(low), array(high)
    ends = [
        point(np.where(reached, end, np.nan), cause)
        for end, reached in ((low, x.low < low), (high, x.high > high))
        if reached.any()
    ]
    bounds = [np.minimum(np.maximum(end, low), high) for end in (x.low, x.high)]
    return replace(x, low=bounds[0], high=bounds[1], common=(*x.common, *ends))


def repeated(x: ValueRange, count: int) -> ValueRange:
    """The sum of `count` numbers of x, the same arrays for all of them."""
    common = _together(x.common)
    sums: tuple[Lattice, ...] = () if common is None else (replace(common, offset=common.offset * count),)
    if x.continuous:  # then only what is everywhere the same is still common
        sums = tuple(point(np.where(s.step == 0, s.offset * count, np.nan), s.cause) for s in x.common)
    chance = x.continuous or bool(x.accidental)
    return ValueRange(x.low * count, x.high * count, sums, (), chance)


def one_lattice(x: ValueRange) -> tuple[float, float, str] | None:
    """(step, offset, cause) of one lattice that holds every number of x but the accidental ones, the same at
    each element; None where that would say nothing."""
    if x.continuous or not x.common:
        return None
    parts: list[Lattice] = []
    for s in x.common:
        steps, offsets = np.broadcast_arrays(s.step, s.offset)
        pairs = np.unique(np.stack([steps.ravel(), offsets.ravel()], 1), axis=0)
        pairs = pairs[~np.isnan(pairs).any(1)]
        if len(pairs) > 64:
            return None
        parts += [Lattice(array(step), array(offset), s.cause) for step, offset in pairs]
    if (joined := _together(parts)) is None:
        return None
    step, offset = abs(float(joined.step)), float(joined.offset)
    largest = max(abs(float(p.step)) for p in parts) or max(abs(float(p.offset)) for p in parts)
    return (step, offset, joined.cause) if step == 0 or step >= largest / 1024 else None


def common_divisor(a: Array, b: Array) -> Array:
    """The largest number of which both are integer multiples, by Euclid's algorithm until what is left is
    rounding. Numbers without a common measure get a very small one."""
    a, b = np.broadcast_arrays(np.abs(array(a)), np.abs(array(b)))
    a, b = np.maximum(a, b), np.minimum(a, b)
    least = 1e-6 * a
    for _ in range(40):
        if not (b > least).any():
            break
        with np.errstate(all="ignore"):
            rest = np.abs(a - np.rint(a / b) * b)
        a, b = np.where(b > least, b, a), np.where(b > least, rest, 0.0)
    return a


def _sum(a: Lattice, b: Lattice) -> Lattice:
    return Lattice(common_divisor(a.step, b.step), a.offset + b.offset, a.cause)


def _product(a: Lattice, b: Lattice) -> Lattice:
    """(o + s i)(p + t j) = o p + (s p) i + (o t) j + (s t) i j."""
    step = common_divisor(common_divisor(a.step * b.offset, a.offset * b.step), a.step * b.step)
    return Lattice(step, a.offset * b.offset, a.cause)


def _together(lattices: Sequence[Lattice]) -> Lattice | None:
    """One lattice that holds the numbers of all."""
    if not lattices:
        return None
    first, *rest = lattices
    step, offset = np.broadcast_arrays(first.step, first.offset)
    for other in rest:
        apart = common_divisor(other.step, other.offset - offset)
        absent, gone = np.isnan(offset), np.isnan(other.offset)
        wider = common_divisor(step, apart)
        step = np.where(absent, other.step, np.where(gone, step, wider))
        offset = np.where(absent, other.offset, offset)
    return Lattice(step, offset, first.cause)


def _fewer(lattices: Sequence[Lattice]) -> tuple[Lattice, ...]:
    distinct: dict[tuple, Lattice] = {}
    for x in lattices:
        if not np.isnan(x.offset).all():
            distinct.setdefault((x.step.tobytes(), x.step.shape, x.offset.tobytes(), x.offset.shape), x)
    kept = tuple(distinct.values())
    joined = _together(kept) if len(kept) > _MANY else None
    return kept if joined is None else (joined,)
