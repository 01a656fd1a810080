"""Which numbers each tensor of a network can hold, by interval reasoning through every operator.

`find_binary` asks what stands before a sign: what is never negative has a sign of 0 and 1, what is never 0
one of -1 and +1, and what is 0 as a matter of course one of three values. An operator that is not in the
table may give anything, 0 as a matter of course included: it is the reason, by name, why a sign behind it is
not computed in bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from relay_passes.rewrite import constant_value, dtype_of, is_call, is_constant, is_tensor, made_by, shape_of
from relay_passes.value_range import (
    Array,
    ValueRange,
    Zero,
    affine,
    array,
    clipped,
    common_divisor,
    image,
    interval,
    lattice,
    one_lattice,
    point,
    product,
    repeated,
    times,
    total,
    union,
)

INF = float("inf")
SUM = "a sum of whole steps"
RECTIFIER = "a rectifier"
SMALL_WINDOW = 16
"""A sum of fewer products than this is 0 as a matter of course where its operands are. In a larger window all
of them are 0 at once by accident only."""
Transfer = Callable[["Operands"], ValueRange]


class BoundValues:
    """Answers for the variables of one module, each found once."""

    def __init__(self) -> None:
        self._known: dict[relax.Var, ValueRange] = {}

    def of(self, builder: relax.BlockBuilder, expr: relax.Expr) -> ValueRange:
        """The numbers that this tensor can hold."""
        if not isinstance(expr, relax.Var):
            return _constant(expr)
        pending = [expr]
        while pending:  # networks are deeper than Python's stack
            var = pending[-1]
            value = made_by(builder, var)
            missing = [read for read in _read(builder, value) if read not in self._known]
            pending += missing
            if not missing:
                pending.pop()
                if var not in self._known:
                    self._known[var] = self._derive(builder, var, value)
        return self._known[expr]

    def _derive(self, builder: relax.BlockBuilder, var: relax.Var, value: Any) -> ValueRange:
        if value is None:
            return _input(var)
        if isinstance(value, relax.Var):
            return self._known[value]
        if isinstance(value, relax.TupleGetItem):
            return self._item(builder, value)
        if not is_call(value):
            return _constant(value)
        if not is_tensor(var):
            return _unknown(value.op.name)  # a tuple: `_item` looks through it
        return TRANSFERS.get(value.op.name, _unknown_result)(Operands(self, builder, var, value))

    def _item(self, builder: relax.BlockBuilder, value: relax.TupleGetItem) -> ValueRange:
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return self.of(builder, made.fields[value.index])
        if is_call(made, "relax.split"):
            x, axis = made.args[0], int(made.attrs.axis)
            extents = [int(field.shape[axis]) for field in made.ty.fields]
            begin = sum(extents[: value.index])
            taken = range(begin, begin + extents[value.index])
            return _moved(self.of(builder, x), shape_of(x), lambda a: np.take(a, taken, axis))
        if value.index == 0 and is_call(made, "relax.nn.dropout", "relax.topk"):
            kept = self.of(builder, made.args[0])
            return kept if is_call(made, "relax.nn.dropout") else _collapsed(kept)
        if value.index == 0 and is_call(made, "relax.nn.batch_norm"):
            return interval(-INF, INF)
        return _unknown(made.op.name if is_call(made) else "a tuple")


def _read(builder: relax.BlockBuilder, value: Any) -> list[relax.Var]:
    """The variables whose numbers have to be known first."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.TupleGetItem):
        made = made_by(builder, value.tuple_value)
        if isinstance(made, relax.Tuple):
            return [field for field in [made.fields[value.index]] if isinstance(field, relax.Var)]
        return _read(builder, made)
    if not is_call(value):
        return []
    found = []
    for arg in value.args:
        fields = _fields(builder, arg)
        found += [e for e in fields if isinstance(e, relax.Var) and is_tensor(e)]
    return found


def _fields(builder: relax.BlockBuilder, arg: relax.Expr) -> list[relax.Expr]:
    """The tensors of an argument that is one, or a tuple of them."""
    made = made_by(builder, arg)
    return list(made.fields) if isinstance(made, relax.Tuple) else [arg]


class Operands:
    """One call: what its operands are and which numbers they hold."""

    def __init__(self, known: BoundValues, builder: relax.BlockBuilder, var: relax.Var, call: relax.Call):
        self.builder, self.call, self.attrs = builder, call, call.attrs
        self.shape, self.dtype = shape_of(var), dtype_of(var)
        self._known = known

    def __getitem__(self, i: int) -> ValueRange:
        return self._known.of(self.builder, self.call.args[i])

    def value(self, i: int) -> Any:
        """What computes an operand."""
        return made_by(self.builder, self.call.args[i])

    def shape_of(self, i: int) -> tuple[int, ...]:
        return shape_of(self.call.args[i])

    def number(self, i: int) -> Array | None:
        """A constant operand as float64; None for another."""
        arg = self.call.args[i] if i < len(self.call.args) else None
        if is_constant(arg):
            return constant_value(arg).astype(np.float64)
        value = getattr(arg, "value", None)
        return array(value) if isinstance(value, (int, float)) else None

    def parts(self, i: int) -> list[tuple[ValueRange, tuple[int, ...]]]:
        """Of an operand that is a tuple of tensors."""
        fields = _fields(self.builder, self.call.args[i])
        return [(self._known.of(self.builder, field), shape_of(field)) for field in fields]

    def axis(self) -> int:
        return int(self.attrs.axis) % len(self.shape)


# ---- where the numbers begin


def _input(var: relax.Var) -> ValueRange:
    dtype = dtype_of(var) if is_tensor(var) else ""
    cause = "the network's input"
    if dtype == "bool":
        return lattice(0, 1, 1, 0, cause)
    if "int" in dtype:
        limits = np.iinfo(dtype)
        return lattice(limits.min, limits.max, 1, 0, cause)
    return ValueRange(array(-INF), array(INF), (point(0, cause),))


def _constant(expr: Any) -> ValueRange:
    values = constant_value(expr).astype(np.float64) if is_constant(expr) else None
    if values is None and isinstance(getattr(expr, "value", None), (int, float)):
        values = array(expr.value)
    if values is None or not values.size or np.isnan(values).any():
        return _unknown("a value that is not a tensor")
    if values.size <= 4096 or (values == values.flat[0]).all():
        return ValueRange(values, values, (point(values, "a constant"),), (), False)
    zeros = (point(0, "a constant"),) if (values == 0).any() else ()
    return ValueRange(array(values.min()), array(values.max()), zeros)


def _unknown(name: str) -> ValueRange:
    cause = f"what {name.removeprefix('relax.').removeprefix('nn.')} gives"
    return ValueRange(array(-INF), array(INF), (point(0, cause),))


def _unknown_result(o: Operands) -> ValueRange:
    return _unknown(o.call.op.name)


# ---- elements to other places


def _shrunk(a: Array) -> Array:
    """Without repeating what is the same along an axis."""
    for axis in range(a.ndim):
        first = a.take([0], axis)
        if a.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, a.shape), a, equal_nan=True):
            a = first
    return a


def _moved(x: ValueRange, shape: tuple[int, ...], move: Callable[[Array], Array]) -> ValueRange:
    """move: the operator on a full array of `shape`."""

    def change(a: Array) -> Array:
        return a.reshape(()) if a.size == 1 else _shrunk(move(np.broadcast_to(a, shape)))

    return x.map_arrays(change)


def _collapsed(x: ValueRange, axes: tuple[int, ...] | None = None, rank: int = 0) -> ValueRange:
    """The same for every element along these axes, or along all: bounds that hold for each of them."""
    arrays = [x.low, x.high, *(a for s in (*x.common, *x.accidental) for a in (s.step, s.offset))]
    ranks = [(1,) * (rank - a.ndim) + a.shape for a in arrays]
    if axes is not None and all(shape[axis] == 1 for shape in ranks for axis in axes):
        return x
    if all(a.size == 1 for a in arrays):
        return x.map_arrays(lambda a: a.reshape(()))
    whole = one_lattice(x)
    low, high = array(x.low.min()), array(x.high.max())
    if whole is not None:
        accidental = (point(0, whole[2]),) if x.accidental else ()
        return replace(lattice(low, high, *whole), accidental=accidental)
    cause = x.zero_cause()
    return ValueRange(low, high, () if cause is None else (point(0, cause),))


def _reshape(o: Operands) -> ValueRange:
    return _moved(o[0], o.shape_of(0), lambda a: a.reshape(o.shape))


def _permute_dims(o: Operands) -> ValueRange:
    axes = o.attrs.axes
    order = None if axes is None else [int(axis) for axis in axes]
    return _moved(o[0], o.shape_of(0), lambda a: a.transpose(order))


def _broadcast_to(o: Operands) -> ValueRange:
    return _moved(o[0], o.shape_of(0), lambda a: np.broadcast_to(a, o.shape))


def _strided_slice(o: Operands) -> ValueRange:
    given = [made_by(o.builder, arg) for arg in o.call.args[1:]]
    numbers = [[int(field.value) for field in tuple_.fields] for tuple_ in given]
    axes, begins, ends = numbers[:3]
    steps = numbers[3] if len(numbers) > 3 else [1] * len(axes)
    shape = o.shape_of(0)
    index = [slice(None)] * len(shape)
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        extent = shape[axis]
        begin, end = (max(at + extent, -1) if at < 0 else at for at in (begin, end))
        index[axis] = slice(begin, None if end < 0 else end, step)
    sliced = _moved(o[0], shape, lambda a: a[tuple(index)])
    fits = all(np.broadcast_shapes(a.shape, o.shape) == o.shape for a in (sliced.low, sliced.high))
    return sliced if fits else _collapsed(o[0])


def _take(o: Operands) -> ValueRange:
    index = o.number(1)
    if index is None or o.attrs.axis is None:
        return _collapsed(o[0])
    axis = int(o.attrs.axis)
    return _moved(o[0], o.shape_of(0), lambda a: np.take(a, index.astype(int), axis))


def _flip(o: Operands) -> ValueRange:
    return _moved(o[0], o.shape_of(0), lambda a: np.flip(a, int(o.attrs.axis)))


def _joined(o: Operands, join: Callable[[list[Array]], Array]) -> ValueRange:
    """Lattices of the parts are paired in order; where a part has fewer, the rest is absent there."""
    parts = o.parts(0)

    def together(arrays: list[Array | None]) -> Array:
        full = [
            np.broadcast_to(array(np.nan) if a is None else a, shape)
            for a, (_, shape) in zip(arrays, parts, strict=True)
        ]
        return _shrunk(join(full))

    def lattices(kind: str) -> tuple:
        held = [getattr(x, kind) for x, _ in parts]
        rows = [[own[i] if i < len(own) else None for own in held] for i in range(max(map(len, held)))]
        result = []
        for row in rows:
            cause = next(s.cause for s in row if s is not None)
            steps = together([array(0) if s is None else s.step for s in row])
            offset = together([None if s is None else s.offset for s in row])
            result.append(replace(point(offset, cause), step=steps))
        return tuple(result)

    low, high = together([x.low for x, _ in parts]), together([x.high for x, _ in parts])
    chance = any(x.continuous for x, _ in parts)
    return ValueRange(low, high, lattices("common"), lattices("accidental"), chance)


def _concat(o: Operands) -> ValueRange:
    return _joined(o, lambda arrays: np.concatenate(arrays, int(o.attrs.axis or 0)))


def _stack(o: Operands) -> ValueRange:
    return _joined(o, lambda arrays: np.stack(arrays, int(o.attrs.axis or 0)))


def _pad(o: Operands) -> ValueRange:
    x, shape = o[0], o.shape_of(0)
    widths = [int(p) for p in o.attrs.pad_width]
    pairs = list(zip(widths[0::2], widths[1::2], strict=True))
    pairs = [(max(a, 0), max(b, 0)) for a, b in pairs]
    padded = _moved(x, shape, lambda a: np.pad(a, pairs, "edge"))
    if any(np.broadcast_shapes(a.shape, o.shape) != o.shape for a in (padded.low, padded.high)):
        padded = _collapsed(x)
    if str(o.attrs.pad_mode) != "constant":
        return padded if all(a.size == 1 for a in (padded.low, padded.high)) else _collapsed(padded)
    value = float(o.attrs.pad_value)
    return union([padded, lattice(value, value, 0, value, "a padding")])


def _scattered(o: Operands) -> ValueRange:
    """Some elements of the first operand, replaced by others of the last."""
    return union([_collapsed(o[0]), _collapsed(o[len(o.call.args) - 1])])


def _masked(o: Operands) -> ValueRange:
    """tril, triu: what is kept, and 0."""
    return union([_collapsed(o[0]), lattice(0, 0, 0, 0, o.call.op.name.removeprefix("relax."))])


def _same(o: Operands) -> ValueRange:
    return o[0]


def _anywhere(o: Operands) -> ValueRange:
    """Elements of the first operand, wherever they went."""
    return _collapsed(o[0])


def _resize(o: Operands) -> ValueRange:
    x = _collapsed(o[0])
    if "nearest" in str(o.attrs.method):
        return x
    if "linear" not in str(o.attrs.method):  # a cubic leaves the interval
        x = replace(x, low=array(-INF), high=array(INF))
    # Halfway between -1 and 1 lies 0.
    halves = [point(0.0, "an interpolation") for s in x.common if (s.step != 0).any() or len(x.common) > 1]
    return replace(x, common=(*x.common, *halves[:1]), continuous=True)


# ---- arithmetic, element by element


def _negative(o: Operands) -> ValueRange:
    return affine(o[0], array(-1), array(0))


def _add(o: Operands, sign: float = 1.0) -> ValueRange:
    a, b = o.number(0), o.number(1)
    if b is not None:
        return affine(o[0], array(1), sign * b)
    if a is not None:
        return affine(o[1], array(sign), a)
    if o.call.args[0].same_as(o.call.args[1]):
        return affine(o[0], array(1 + sign), array(0))
    first, second = o[0], affine(o[1], array(sign), array(0))
    if is_call(o.value(1), "relax.abs") and made_by(o.builder, o.value(1).args[0]) is o.value(0):
        return ValueRange(array(0), first.high + second.high, (point(0, RECTIFIER),))  # x + |x|
    if _take_turns(o):
        return interval(first.low + second.low, first.high + second.high)
    return total(first, second)


def _subtract(o: Operands) -> ValueRange:
    return _add(o, -1.0)


def _take_turns(o: Operands) -> bool:
    """Whether this adds two rectifiers of which one is not 0: elu, selu and leaky relu in parts."""
    inner = []
    for i in (0, 1):
        value = o.value(i)
        while is_call(value, "relax.multiply") and any(is_constant(arg) for arg in value.args):
            value = made_by(o.builder, next(arg for arg in value.args if not is_constant(arg)))
        if not is_call(value, "relax.nn.relu"):
            return False
        inner.append(value.args[0])
    for one, other in (inner, inner[::-1]):
        opposite = made_by(o.builder, other)
        if is_call(opposite, "relax.subtract"):  # 1 - exp(x)
            opposite = made_by(o.builder, opposite.args[1])
        if is_call(opposite, "relax.negative", "relax.exp") and opposite.args[0].same_as(one):
            return True
    return False


def _multiply(o: Operands) -> ValueRange:
    for i in (0, 1):
        factor = o.number(i)
        if factor is not None:
            return affine(o[1 - i], factor, array(0))
    if o.call.args[0].same_as(o.call.args[1]):
        return _square(o)
    for i in (0, 1):
        if (half := _half(o, 1 - i, o.call.args[i])) is not None:  # x * (x > 0)
            return union([half, lattice(0, 0, 0, 0, RECTIFIER)])
    return product(o[0], o[1])


def _half(o: Operands, i: int, x: relax.Expr) -> ValueRange | None:
    """x where operand i, the truth of a comparison of x with a number as 0 or 1, is 1."""
    value = o.value(i)
    if is_call(value, "relax.astype"):
        value = made_by(o.builder, value.args[0])
    return _where_true(o, value, x, True)


def _where_true(o: Operands, condition: Any, x: relax.Expr, truth: bool) -> ValueRange | None:
    """The numbers of x where this comparison of x with a number is `truth`; None if it is another thing."""
    names = ("relax.greater", "relax.greater_equal", "relax.less", "relax.less_equal")
    if not is_call(condition, *names) or not is_tensor(x):
        return None
    left, right = condition.args
    above = condition.op.name.startswith("relax.greater")
    if not left.same_as(x):
        left, right, above = right, left, not above
    if not left.same_as(x) or not is_constant(right):
        return None
    limit = constant_value(right).astype(np.float64)
    known = o._known.of(o.builder, x)
    if above == truth:
        return replace(known, low=np.maximum(known.low, limit), high=np.maximum(known.high, limit))
    return replace(known, high=np.minimum(known.high, limit), low=np.minimum(known.low, limit))


def _square(o: Operands) -> ValueRange:
    x = o[0]
    high = np.maximum(x.low**2, x.high**2)
    return image(
        x, np.square, np.where((x.low <= 0) & (x.high >= 0), 0, np.minimum(x.low**2, x.high**2)), high
    )


def _abs(o: Operands) -> ValueRange:
    x = o[0]
    both = union([x, affine(x, array(-1), array(0))])
    low = np.where((x.low <= 0) & (x.high >= 0), 0, np.minimum(np.abs(x.low), np.abs(x.high)))
    return replace(both, low=low)


def _divide(o: Operands) -> ValueRange:
    by = o.number(1)
    if by is not None and (by != 0).all():
        return affine(o[0], 1 / by, array(0))
    a, b = o[0], o[1]
    zeros = tuple(
        point(np.where(s.holds_zero(), 0.0, np.nan), s.cause) for s in a.common if s.holds_zero().any()
    )
    same_side = a.not_negative and b.not_negative
    return ValueRange(array(0 if same_side else -INF), array(INF), zeros)


def _maximum(o: Operands) -> ValueRange:
    for i in (0, 1):
        if (limit := o.number(i)) is not None:
            return clipped(o[1 - i], limit, INF, RECTIFIER)
    both = union([o[0], o[1]])
    return replace(both, low=np.maximum(o[0].low, o[1].low))


def _minimum(o: Operands) -> ValueRange:
    for i in (0, 1):
        if (limit := o.number(i)) is not None:
            return clipped(o[1 - i], -INF, limit, RECTIFIER)
    both = union([o[0], o[1]])
    return replace(both, high=np.minimum(o[0].high, o[1].high))


def _relu(o: Operands) -> ValueRange:
    return clipped(o[0], 0, INF, RECTIFIER)


def _relu6(o: Operands) -> ValueRange:
    return clipped(o[0], 0, 6, RECTIFIER)


def _clip(o: Operands) -> ValueRange:
    low, high = o.number(1), o.number(2)
    return clipped(o[0], -INF if low is None else low, INF if high is None else high, RECTIFIER)


def _where(o: Operands) -> ValueRange:
    condition = o.value(0)
    branches = []
    for i, truth in ((1, True), (2, False)):
        narrowed = _where_true(o, condition, o.call.args[i], truth)
        branches.append(o[i] if narrowed is None else narrowed)
    return union(branches)


def _leaky(o: Operands) -> ValueRange:
    """0 at 0 and nowhere else, whatever the slope below 0 is but 0."""
    slope = float(o.attrs.alpha) if is_call(o.call, "relax.nn.leakyrelu") else o.number(1)
    x = o[0]
    if slope is None or np.ndim(slope):
        zeros = () if slope is not None and np.all(slope) else (point(0, RECTIFIER),)
        return replace(interval(-INF, INF), common=zeros)
    below = affine(x, array(slope), array(0))
    both = union([x, below])
    return replace(both, low=np.minimum(np.minimum(x.low, below.low), np.maximum(x.low, 0)))


def _sign(o: Operands) -> ValueRange:
    x = o[0]
    signs = lattice(np.sign(x.low), np.sign(x.high), 2, 1, "a sign")
    zero = point(0, x.zero_cause() or "a sign")
    if x.zero is Zero.COMMON:
        return replace(signs, common=(*signs.common, zero))
    return replace(signs, accidental=(zero,) if x.zero is Zero.ACCIDENTAL else ())


def _monotone(function: Callable[[Array], Array]) -> Transfer:
    """Rising functions."""

    def transfer(o: Operands) -> ValueRange:
        x = o[0]
        with np.errstate(all="ignore"):
            low, high = function(x.low), function(x.high)
        # In float32 these vanish, as the exponential of -200 does.
        low, high = (np.where(np.abs(end) < 1e-6, 0.0, end) for end in (low, high))
        return image(x, function, np.where(np.isnan(low), -INF, low), np.where(np.isnan(high), INF, high))

    return transfer


def _within(low: float, high: float, function: Callable[[Array], Array] | None = None) -> Transfer:
    """Other functions, with what they can reach; function: where single numbers go; None: anywhere."""

    def transfer(o: Operands) -> ValueRange:
        return interval(low, high) if function is None else image(o[0], function, low, high)

    return transfer


def _dips(least: float) -> Transfer:
    """Rectifiers that are 0 at 0, dip to `least` below it and follow x above: gelu, silu."""

    def transfer(o: Operands) -> ValueRange:
        x = o[0]
        low, high = np.where(x.low >= 0, 0, least), np.maximum(x.high, 0)
        return image(x, lambda at: np.where(at == 0, 0.0, np.nan), low, high)

    return transfer


def _rounded(function: Callable[[Array], Array]) -> Transfer:
    def transfer(o: Operands) -> ValueRange:
        x = o[0]
        return lattice(function(x.low), function(x.high), 1, 0, "a rounding")

    return transfer


def _astype(o: Operands) -> ValueRange:
    x, before = o[0], dtype_of(o.call.args[0])
    if o.dtype == "bool" and before != "bool":
        return _truth(o)
    if "float" in before and "int" in o.dtype:
        return lattice(np.trunc(x.low), np.trunc(x.high), 1, 0, "a rounding")
    return x


def _truth(o: Operands) -> ValueRange:
    return lattice(0, 1, 1, 0, "a comparison")


def _power(o: Operands) -> ValueRange:
    exponent = o.number(1)
    if exponent is not None and exponent.size == 1:
        power = float(exponent.reshape(()))
        if power == 2:
            return _square(o)
        even = power % 2 == 0
        low = 0 if even or o[0].not_negative or power % 1 else -INF
        return image(o[0], lambda at: np.where(at == 0, 0.0 if power > 0 else np.nan, np.nan), low, INF)
    return interval(0, INF) if o[0].not_negative else _unknown(o.call.op.name)


def _modulo(o: Operands) -> ValueRange:
    by = o.number(1)
    if by is None or not (by > 0).all():
        return _unknown(o.call.op.name)
    whole = one_lattice(o[0])
    if whole is None:
        return interval(0, by)
    step = common_divisor(common_divisor(array(whole[0]), array(whole[1])), by)
    return lattice(0, by, step, 0, whole[2])


# ---- reductions and windows


def _axes(o: Operands, rank: int) -> tuple[int, ...]:
    axis = o.attrs.axis
    if axis is None:
        return tuple(range(rank))
    return tuple(int(a) % rank for a in (axis if hasattr(axis, "__len__") else [axis]))


def _reduced(o: Operands, x: ValueRange) -> ValueRange:
    """x without the axes over which it is reduced, along which it is the same."""
    shape, axes = o.shape_of(0), _axes(o, len(o.shape_of(0)))
    x = _collapsed(x, axes, len(shape))

    def change(a: Array) -> Array:
        if a.size == 1:
            return a.reshape(())
        a = a.reshape((1,) * (len(shape) - a.ndim) + a.shape)
        return a if len(o.shape) == len(shape) else a.squeeze(axes)

    return x.map_arrays(change)


def _count(o: Operands) -> int:
    shape = o.shape_of(0)
    return int(np.prod([shape[axis] for axis in _axes(o, len(shape))]))


def _reduce_sum(o: Operands) -> ValueRange:
    return repeated(_reduced(o, o[0]), _count(o))


def _mean(o: Operands) -> ValueRange:
    count = _count(o)
    return affine(repeated(_reduced(o, o[0]), count), array(1 / count), array(0))


def _reduce_extreme(o: Operands) -> ValueRange:
    return _reduced(o, o[0])


def _cumulative(o: Operands) -> ValueRange:
    x = _collapsed(o[0])
    whole = one_lattice(x)
    low, high = (array(0 if (end == 0).all() else np.sign(end.sum()) * INF) for end in (x.low, x.high))
    low, high = np.minimum(low, x.low.min()), np.maximum(high, x.high.max())
    if whole is None:
        return ValueRange(low, high, tuple(point(0, cause) for cause in [x.zero_cause()] if cause))
    step = common_divisor(array(whole[0]), array(whole[1]))
    return lattice(low, high, step, 0, whole[2])


def _average(o: Operands) -> ValueRange:
    """The average of a window, of fewer elements at a border, or with zeros for those outside."""
    rank = len(o.shape)
    channels_last = str(getattr(o.attrs, "layout", "NCHW")).endswith("C")
    spatial = tuple(range(1, rank - 1)) if channels_last else tuple(range(2, rank))
    x = _collapsed(o[0], spatial, rank)
    if getattr(o.attrs, "padding", None) is not None and any(int(p) for p in o.attrs.padding):
        x = union([x, lattice(0, 0, 0, 0, "a padding")]) if o.attrs.count_include_pad else x
    if x.continuous:
        same = tuple(s for s in x.common if (s.step == 0).all())
        return replace(x, common=same)
    return _collapsed_sum(x)


def _collapsed_sum(x: ValueRange) -> ValueRange:
    """Averages of any number of elements from a lattice: 0 may be one wherever both signs occur."""
    low, high = array(x.low.min()), array(x.high.max())
    zeros = (point(0, SUM),) if (low < 0 < high) or x.zero_cause() else ()
    return ValueRange(low, high, zeros)


def _max_pool(o: Operands) -> ValueRange:
    rank = len(o.shape)
    channels_last = str(getattr(o.attrs, "layout", "NCHW")).endswith("C")
    spatial = tuple(range(1, rank - 1)) if channels_last else tuple(range(2, rank))
    return _collapsed(o[0], spatial, rank)


# ---- layers


def _weight_unit(flat: Array) -> Array | None:
    """[O]: of which number every weight of a channel is a whole multiple; None where one has none such."""
    magnitudes = np.abs(flat)
    unit = np.where(magnitudes > 0, magnitudes, INF).min(1)
    unit = np.where(np.isfinite(unit), unit, 1.0)
    if (flat == np.rint(flat)).all() and magnitudes.max(initial=0) < 2**20:
        whole = np.gcd.reduce(magnitudes.astype(np.int64), axis=1)
        return np.maximum(whole, 1).astype(np.float64)
    ratio = magnitudes / unit[:, None]
    return unit if (np.abs(ratio - np.rint(ratio)) < 1e-5).all() and ratio.max(initial=0) < 2**16 else None


def _dot(x: ValueRange, weights: Array, ragged: bool, empty: bool) -> ValueRange:
    """sum_k w[o, k] x_k with arrays [O]; ragged: at a border some terms are missing; empty: all of them."""
    x = _collapsed(x)
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    low = np.minimum(x.low, 0) if ragged else x.low
    high = np.maximum(x.high, 0) if ragged else x.high
    bounds = _extreme(positive, low, negative, high), _extreme(positive, high, negative, low)
    outside = (point(0, "a padding"),) if empty else ()
    if flat.shape[1] < SMALL_WINDOW and (cause := x.zero_cause()):
        outside = (*outside, point(0, cause))
    if flat.shape[1] == 1:
        scaled = affine(x, flat[:, 0], array(0))
        return replace(scaled, low=bounds[0], high=bounds[1], common=(*scaled.common, *outside))
    whole, unit = one_lattice(x), _weight_unit(flat)
    if whole is None or unit is None:
        if unit is not None and not x.continuous:  # of several lattices, each of which may cancel out
            outside = (*outside, point(0, SUM))
        return ValueRange(*bounds, outside)
    step, offset, _ = whole
    steps, offsets = step * unit, offset * flat.sum(1)
    if ragged:
        steps, offsets = common_divisor(steps, offset * unit), np.zeros(len(unit))
    chance = bool(x.accidental)
    sums = replace(lattice(*bounds, steps, offsets, SUM), continuous=chance)
    return replace(sums, common=(*sums.common, *outside))


def _extreme(positive: Array, low: Array, negative: Array, high: Array) -> Array:
    """positive * low + negative * high, where 0 times infinity is 0."""
    return times(positive, low) + times(negative, high)


def _convolution(o: Operands) -> ValueRange:
    """bibench.convolution: channels last."""
    padding, kernel = ([int(v) for v in o.attrs[key]] for key in ("padding", "kernel"))
    reach = [(k - 1) * int(d) + 1 for k, d in zip(kernel, o.attrs["dilation"], strict=True)]
    empty = any(p >= r for p, r in zip(padding, reach * 2, strict=True))
    return _dot(o[0], constant_value(o.call.args[1]), any(padding), empty)


def _matmul_constant(o: Operands) -> ValueRange:
    return _dot(o[0], constant_value(o.call.args[1]), False, False)


def _foreign_convolution(o: Operands) -> ValueRange:
    """Of TVM's own, channels in the second place. A transposed one has windows without a term."""
    weights = o.number(1)
    if weights is None:
        return _product_of(o[0], o[1], 2)
    transposed = "transpose" in o.call.op.name
    if transposed:
        groups = int(o.attrs.groups)
        weights = np.moveaxis(weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:]), 2, 1)
        weights = weights.reshape(groups * weights.shape[1], -1)
    padding = [int(p) for p in o.attrs.padding]
    sums = _dot(o[0], weights, transposed or any(padding), transposed)
    spread = (-1,) + (1,) * (len(o.shape) - 2)
    return sums.map_arrays(lambda a: a if a.size == 1 else a.reshape(spread))


def _binary_convolution(o: Operands) -> ValueRange:
    """Integers: of K signs; or doubled, of those of them that meet a 1."""
    signs = constant_value(o.call.args[1])
    count = signs[0].size
    ragged = any(int(p) for p in o.attrs["padding"])
    if int(o.attrs["zero_one"]):
        return lattice(-2 * count, 2 * count, 2, 0, SUM)
    return lattice(-count, count, 1 if ragged else 2, 0 if ragged else count, SUM)


def _int8_convolution(o: Operands) -> ValueRange:
    return lattice(-INF, INF, 1, 0, SUM)


def _binary_product(o: Operands) -> ValueRange:
    depth = int(o.attrs["depth"])
    return lattice(-depth, depth, 2, depth, SUM)


def _product_of(a: ValueRange, b: ValueRange, depth: int) -> ValueRange:
    """Sums of `depth` products of two activations."""
    each = product(_collapsed(a), _collapsed(b))
    return _collapsed(repeated(each, depth)) if depth == 1 or not each.continuous else interval(
        0 if each.not_negative else -INF, INF)  # fmt: skip


def _product(o: Operands) -> ValueRange:
    return _product_of(o[0], o[1], o.shape_of(0)[-1])


_FREE = ("nn.layer_norm", "nn.group_norm", "nn.instance_norm", "nn.rms_norm", "nn.attention")
_BOOLEAN = (
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "logical_and", "logical_or",
    "logical_not", "logical_xor", "isnan", "isinf", "isfinite",
)  # fmt: skip
_PLACES = ("tile", "repeat", "gather_elements", "gather_nd", "index_tensor", "dynamic_strided_slice", "sort",
           "nn.pixel_shuffle", "roll")  # fmt: skip


def _softplus(a: Array) -> Array:
    return np.logaddexp(0.0, a)


def _sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def _erf(a: Array) -> Array:
    from math import erf

    return np.vectorize(erf, otypes=[float])(a)


def _counted(o: Operands) -> ValueRange:
    return lattice(0, INF, 1, 0, "an index")


def _filled(o: Operands) -> ValueRange:
    return _collapsed(o[len(o.call.args) - 1])


TRANSFERS: dict[str, Transfer] = {f"relax.{name}": transfer for name, transfer in {
    **dict.fromkeys(("reshape", "expand_dims", "squeeze", "flatten", "nn.batch_flatten"), _reshape),
    **dict.fromkeys(_PLACES, _anywhere),
    **dict.fromkeys(("scatter_elements", "scatter_nd", "index_put", "slice_scatter"), _scattered),
    **dict.fromkeys(("tril", "triu"), _masked),
    **dict.fromkeys(_BOOLEAN, _truth),
    **dict.fromkeys(_FREE, _within(-INF, INF)),
    "permute_dims": _permute_dims, "broadcast_to": _broadcast_to, "strided_slice": _strided_slice,
    "take": _take, "flip": _flip, "concat": _concat, "stack": _stack, "nn.pad": _pad, "astype": _astype,
    "image.resize2d": _resize, "image.resize3d": _resize, "nn.dropout": _same, "full": _filled,
    "add": _add, "subtract": _subtract, "multiply": _multiply, "divide": _divide, "negative": _negative,
    "maximum": _maximum, "minimum": _minimum, "nn.relu": _relu, "nn.relu6": _relu6, "clip": _clip,
    "where": _where, "nn.leakyrelu": _leaky, "nn.prelu": _leaky, "sign": _sign, "abs": _abs,
    "square": _square, "power": _power, "floor_mod": _modulo, "mod": _modulo,
    "tanh": _monotone(np.tanh), "sinh": _monotone(np.sinh), "asinh": _monotone(np.arcsinh),
    "atan": _monotone(np.arctan), "erf": _monotone(_erf), "exp": _monotone(np.exp),
    "sigmoid": _monotone(_sigmoid), "nn.softplus": _monotone(_softplus), "log": _monotone(np.log),
    "sqrt": _monotone(np.sqrt), "nn.selu": _monotone(lambda a: np.where(a > 0, a, np.expm1(a))),
    "rsqrt": _within(0, INF), "sin": _within(-1, 1, np.sin), "cos": _within(-1, 1, np.cos),
    "cosh": _within(1, INF), "acos": _within(0, np.pi), "asin": _within(-np.pi / 2, np.pi / 2, np.arcsin),
    "nn.gelu": _dips(-0.2), "nn.gelu_tanh": _dips(-0.2), "nn.silu": _dips(-0.3),
    "nn.softmax": _within(0, 1), "nn.log_softmax": _within(-INF, 0),
    "round": _rounded(np.rint), "floor": _rounded(np.floor), "ceil": _rounded(np.ceil),
    "trunc": _rounded(np.trunc), "argmax": _counted, "argmin": _counted, "argsort": _counted,
    "one_hot": _truth, "sum": _reduce_sum, "mean": _mean, "max": _reduce_extreme, "min": _reduce_extreme,
    "variance": _within(0, INF), "std": _within(0, INF), "cumsum": _cumulative,
    **{f"nn.avg_pool{n}d": _average for n in (1, 2, 3)},
    **{f"nn.adaptive_avg_pool{n}d": _average for n in (1, 2, 3)},
    **{f"nn.max_pool{n}d": _max_pool for n in (1, 2, 3)},
    **{f"nn.conv{n}d{kind}": _foreign_convolution for n in (1, 2, 3) for kind in ("", "_transpose")},
}.items()} | {
    "bibench.convolution": _convolution, "bibench.matmul": _matmul_constant, "bibench.product": _product,
    "relax.matmul": _product, "bibench.named": _same, "bibench.binary_convolution": _binary_convolution,
    "bibench.int8_convolution": _int8_convolution, "bibench.binary_product": _binary_product,
}  # fmt: skip
