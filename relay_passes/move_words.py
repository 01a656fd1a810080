"""What only moves pixels before a packing moves words of bits, and no floats.

    pack(f(move(x)))   ->  move(pack(f(x)))

f works element by element, with numbers of each channel at most. A move pads with a number, takes pixels by
their indices, slices, turns round or joins images, permutes axes, as heads and tokens of an attention, or
makes an image larger, each pixel so many times: 32 times
less memory is touched, and what computes x packs it, since nothing stands between. A padding becomes that of
words where its number has the same bit in all channels. A slice that leaves less than half is not moved: to
pack all of x would take longer. Of planes that are turned to channels, the planes are packed.

Requires: channels last; packings with halos of 0.
Ensures: no packing of truths reads what was moved as above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.operators import Pack, attributes_of, call
from relay_passes.ir.permutations import order_of, turned_from
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
from schedules.parts.bits import Packing
from schedules.parts.epilogue import OPERATORS, evaluate_operator

_LONGEST = 12  # operators between a move and a packing


def move_words(mod: tvm.IRModule) -> tvm.IRModule:
    return rewrite(mod, _visit)


def _visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
    if not is_call(value, "bibench.pack"):
        return value
    pack = attributes_of(value, Pack)
    packing = pack.packing
    if pack.planar or packing.quantizer:
        return value
    done: dict[tuple[relax.Expr, relax.Expr], relax.Expr] = {}  # (f, x) -> words of f(x)

    def packed(truths: relax.Expr, f: relax.Expr, x: relax.Expr) -> relax.Call:
        """pack(truths), which are f(x); truths that were made by f stand for it."""
        same = relax.Call(value.op, [truths], value.attrs)
        moved = _moved(builder, truths)
        if moved is None:
            return same
        if not moved.same_as(x):
            f = truths
        move = made_by(builder, moved)
        planes = turned_from(builder, moved)
        # Numbers of each channel would have to be turned back.
        if planes is not None and _evaluate(builder, truths, moved, np.zeros((), dtype_of(moved))).size == 1:
            truths = _instead(builder, truths, moved, planes)
            return call("bibench.pack", truths, attributes=replace(pack, planar=True))
        again = _move_of_words(builder, move, truths, moved, packing)
        sources = _sources(builder, move)
        if again is None or (_leaves_few(move, moved) and (f, sources[0]) not in done):
            return same
        # Slices of one of the others come last, when that is packed.
        for source in sorted(sources, key=lambda s: is_call(made_by(builder, s), "relax.strided_slice")):
            if (f, source) not in done:
                done[f, source] = builder.emit(packed(_instead(builder, truths, moved, source), f, source))
        return again([done[f, source] for source in sources])

    return packed(value.args[0], value.args[0], value.args[0])


def _moved(builder: relax.BlockBuilder, truths: relax.Expr) -> relax.Var | None:
    """The one variable that is a move, and of which these truths are made element by element."""
    waiting, found, steps = [truths], set(), 0
    while waiting:
        var = waiting.pop()
        value = made_by(builder, var)
        if is_call(value, *OPERATORS):
            steps += 1
            if steps > _LONGEST or not all(_of_channels(arg) for arg in value.args):
                return None
            waiting += [arg for arg in value.args if isinstance(arg, relax.Var)]
        elif is_call(value, *_MOVES) and shape_of(var) == shape_of(truths):
            found.add(var)
        else:
            return None
    return found.pop() if len(found) == 1 else None


def _of_channels(arg: relax.Expr) -> bool:
    """Whether it is the same for all pixels where it is a constant."""
    return not is_constant(arg) or math.prod(shape_of(arg)[:-1]) == 1


def _instead(builder: relax.BlockBuilder, expr: relax.Expr, old: relax.Var, new: relax.Expr) -> relax.Expr:
    """The operators that make `expr` of `old`, of `new`."""
    made: dict[relax.Expr, relax.Expr] = {old: new}

    def of(arg: relax.Expr) -> relax.Expr:
        if not isinstance(arg, relax.Var):
            return arg
        if arg not in made:
            value = made_by(builder, arg)
            args = [of(a) for a in value.args]
            made[arg] = builder.emit(relax.Call(value.op, args, value.attrs, value.ty_args))
        return made[arg]

    return of(expr)


def _sources(builder: relax.BlockBuilder, move: relax.Call) -> list[relax.Expr]:
    if is_call(move, "relax.concat"):
        return list(made_by(builder, move.args[0]).fields)
    return [move.args[0]]


Words = list[relax.Expr]


def _move_of_words(
    builder: relax.BlockBuilder, move: relax.Call, truths: relax.Expr, moved: relax.Var, packing: Packing
) -> Callable[[Words], relax.Call] | None:
    """The same move of the words of all that it reads; None where channels move, or words cannot say it."""
    rank = len(shape_of(moved))
    ahead = 4 - rank  # what is packed lies as an image
    if not 2 <= rank <= 4:
        return None
    if is_call(move, "relax.nn.pad"):
        return _pad_of_words(builder, move, truths, moved, packing, ahead)
    if is_call(move, "relax.image.resize2d"):
        return _repetition_of_words(move, moved)
    if is_call(move, "relax.permute_dims"):
        order = order_of(move)
        axes_of_words = [*range(ahead), *(axis + ahead for axis in order)]
        return (
            (lambda words: relax.op.permute_dims(words[0], axes_of_words)) if order[-1] == rank - 1 else None
        )
    axes = _axes(move)
    if is_call(move, "relax.take") and len(shape_of(move.args[1])) != 1:
        return None
    if axes is None or any(axis % rank == rank - 1 for axis in axes):
        return None
    axes = [axis % rank + ahead for axis in axes]
    if is_call(move, "relax.take"):
        mode = move.attrs.mode
        return lambda words: relax.op.take(words[0], move.args[1], axes[0], mode)
    if is_call(move, "relax.flip"):
        return lambda words: relax.op.flip(words[0], axes[0])
    if is_call(move, "relax.concat"):
        return lambda words: relax.op.concat(words, axes[0])
    return lambda words: relax.op.strided_slice(words[0], axes, *move.args[2:])


def _repetition_of_words(resize: relax.Call, moved: relax.Var) -> Callable[[Words], relax.Call] | None:
    """Of an image that is made larger by whole factors, each pixel of it as many times.

    Pixel i is that at (i + 1/2) / k - 1/2, which is never half way between two, or at i / k, rounded down.
    """
    how = resize.attrs.coordinate_transformation_mode, resize.attrs.rounding_method
    whole = how == ("asymmetric", "floor") or (how[0] == "half_pixel" and how[1].startswith("round"))
    if resize.attrs.method != "nearest_neighbor" or resize.attrs.layout != "NHWC" or not whole:
        return None
    sizes = zip(shape_of(resize.args[0])[1:3], shape_of(moved)[1:3], strict=True)
    (down, odd), (across, odd_across) = (divmod(after, before) for before, after in sizes)
    if odd or odd_across:
        return None
    return lambda words: relax.op.repeat(relax.op.repeat(words[0], down, 1), across, 2)


def _leaves_few(move: relax.Call, moved: relax.Var) -> bool:
    slices = is_call(move, "relax.strided_slice")
    return slices and 2 * math.prod(shape_of(moved)) < math.prod(shape_of(move.args[0]))


def _axes(move: relax.Call) -> list[int] | None:
    """Along which it moves; None where all are one."""
    if is_call(move, "relax.strided_slice"):
        return [int(axis.value) for axis in move.args[1].fields]
    return None if move.attrs.axis is None else [int(move.attrs.axis)]


def _pad_of_words(
    builder: relax.BlockBuilder,
    pad: relax.Call,
    truths: relax.Expr,
    moved: relax.Var,
    packing: Packing,
    ahead: int,
) -> Callable[[Words], relax.Call] | None:
    widths = [int(width) for width in pad.attrs.pad_width]
    if pad.attrs.pad_mode != "constant" or min(widths) < 0 or any(widths[-2:]):
        return None
    bits = _evaluate(builder, truths, moved, np.float32(pad.attrs.pad_value))
    if not bits.any():
        word = 0
    elif bits.all() and packing.byte_a_channel:
        word = 1
    elif bits.all() and (packing.channels // packing.groups) % packing.word == 0:
        word = 2**packing.word - 1
    else:
        return None
    return lambda words: relax.op.nn.pad(words[0], [0, 0] * ahead + widths, pad_value=word)


def _evaluate(builder: relax.BlockBuilder, expr: relax.Expr, moved: relax.Var, number: Any) -> np.ndarray:
    """What the operators make of one number in all elements of `moved`."""
    if expr.same_as(moved):
        return np.asarray(number)
    if not is_tensor(expr):
        return np.asarray(float(expr.value), np.float32)
    if is_constant(expr):
        return constant_value(expr)
    value = made_by(builder, expr)
    return evaluate_operator(value, [_evaluate(builder, arg, moved, number) for arg in value.args])


_MOVES = (
    "relax.nn.pad", "relax.take", "relax.strided_slice", "relax.flip", "relax.concat", "relax.image.resize2d",
    "relax.permute_dims",
)  # fmt: skip
