"""A schedule for every kernel that is not ours: rows in parallel, vectors along the last axis.

The last axis of what a block writes lies together in memory: channels, mostly. A vector that spans two rows
would be gathered number by number, unless whole vectors divide a row. A reduction over other axes is turned
inside out: its loops go around the vector, not into it; and what alone reads it, element by element, follows
each of its rows.

Requires: kernels of TVM as `FuseTIR` leaves them.
Ensures: kernels that are ours are untouched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir import Schedule, ScheduleError
from tvm.s_tir.schedule import LoopRV, SBlockRV

from relay_passes.kernels.share import in_turn, worth_sharing
from schedules.parts.rationals import ERF, TANH, exponential, logarithm, rational
from schedules.parts.truths import as_number, opposite
from schedules.parts.write_back import SCHEDULED
from schedules.targets.kernel_target import KernelTarget

_LANES = (16, 8, 4)
_LONGEST = 64  # vectors, of any length
_SPATIAL = tirx.IterVar.DataPar


def schedule_rest(mod: tvm.IRModule, target: KernelTarget) -> tvm.IRModule:
    new = tvm.IRModule(mod.functions, attrs=mod.attrs)
    for gvar, function in mod.functions.items():
        if isinstance(function, tirx.PrimFunc) and SCHEDULED not in (function.attrs or {}):
            new[gvar] = _scheduled(function, shared=worth_sharing(function, target))
    return new


def _scheduled(function: tirx.PrimFunc, *, shared: bool) -> tirx.PrimFunc:
    exact = [
        (tvm.ir.Call, _in_vectors),
        (tirx.Not, lambda negation: opposite(negation.a)),
        (tirx.Cast, _without_cast),  # of a truth, which `_inline` may put where a name stands for it
        (tirx.For, in_turn),  # of TVM's scatters, in which two threads may add to one element
        (tirx.AttrStmt, _without_pragma),
    ]
    schedule = Schedule(function.with_body(tvm_ffi.structural_map(function.body, exact)))
    _inline(schedule)
    followed: set[str] = set()
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if schedule.get(block).name_hint in followed:
            continue
        loops = schedule.get_loops(block)
        axes = schedule.get(block).iter_vars
        if len(loops) != len(axes) or not loops:
            continue
        spatial = [loop for loop, axis in zip(loops, axes, strict=True) if axis.iter_type == _SPATIAL]
        reduced = [loop for loop, axis in zip(loops, axes, strict=True) if axis.iter_type != _SPATIAL]
        if not spatial:
            continue
        while not reduced and len(spatial) > 1 and int(schedule.get(spatial[-1]).extent) == 1:
            spatial[-2:] = [schedule.fuse(*spatial[-2:])]
        last = int(schedule.get(spatial[-1]).extent)
        if reduced:
            schedule.reorder(*spatial[:-1], *reduced, spatial[-1])
        outer = spatial[:-1]
        if not _touches_truths(schedule.get(block)):
            if not reduced and (last % _LANES[0] == 0 or len(spatial) == 1):
                outer = _vectorize(schedule, schedule.fuse(*spatial))
            elif not reduced and last <= _LONGEST and last % _LANES[1]:
                schedule.vectorize(spatial[-1])  # vectors across rows would gather
            else:
                around = _vectorize(schedule, spatial[-1])
                outer = outer if reduced else [*outer, *around]
        if outer and (shared or reduced):
            outer = [schedule.fuse(*outer)]
        if outer and shared:
            schedule.parallel(*outer)
        # Last: a block without its initial value is no reduction any more, and may not be touched.
        if reduced:
            extents = [int(axis.dom.extent) for axis in axes if axis.iter_type == _SPATIAL]
            schedule.decompose_reduction(block, reduced[0])
            if outer and last > 1:
                followed |= _follow(schedule, block, extents, *outer)
    return schedule.mod["main"]


def _without_pragma(statement: tirx.AttrStmt) -> tirx.Stmt:
    """TVM's scatters have one of which its code generator warns that it does not know it."""
    return statement.body if statement.attr_key == "pragma_scope" else statement


def _in_vectors(call: tvm.ir.Call) -> tirx.PrimExpr:
    """What LLVM would call a function for, number by number, as polynomials."""
    name = str(call.op.name) if isinstance(call.op, tvm.ir.Op) else ""
    if str(call.ty) != "float32" or name not in _POLYNOMIALS:
        return call
    named: list[tuple[tirx.Var, tirx.PrimExpr]] = []

    def bind(value: tirx.PrimExpr) -> tirx.Var:
        """A value that is read several times; written out each time, one in another's would be so squared."""
        named.append((tirx.Var("v", value.ty), value))
        return named[-1][0]

    result = _POLYNOMIALS[name](bind(call.args[0]), bind)
    for variable, value in reversed(named):
        result = tirx.Let(variable, value, result)
    return result


def _without_cast(cast: tirx.Cast) -> tirx.PrimExpr:
    return as_number(cast.value, str(cast.ty)) if str(cast.value.ty) == "bool" else cast


def _sigmoid(x: tirx.PrimExpr, bind: Callable[[tirx.PrimExpr], tirx.Var]) -> tirx.PrimExpr:
    one = tirx.const(1, "float32")
    return one / (one + exponential(bind(-x), bind))


_POLYNOMIALS: dict[str, Callable[..., tirx.PrimExpr]] = {
    "tirx.exp": exponential,
    "tirx.log": logarithm,
    "tirx.sigmoid": _sigmoid,
    "tirx.erf": lambda x, bind: rational(x, ERF),
    "tirx.tanh": lambda x, bind: rational(x, TANH),
}


def _inline(schedule: Schedule) -> None:
    """What one block alone reads, element by element, is computed there."""
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        consumers = schedule.get_consumers(block)
        if len(consumers) == 1 and _extents(schedule, block) == _extents(schedule, consumers[0]) is not None:
            with contextlib.suppress(ScheduleError):
                schedule.compute_inline(block)


def _follow(schedule: Schedule, reduction: SBlockRV, extents: list[int], loop: LoopRV) -> set[str]:
    """What alone reads a reduction to these extents, element by element, is computed in this loop, which goes
    around it. Returns the name of that block."""
    consumers = schedule.get_consumers(reduction)
    if len(consumers) != 1 or _extents(schedule, consumers[0]) != extents:
        return set()
    [consumer] = consumers
    if _touches_truths(schedule.get(consumer)):
        return set()
    try:
        schedule.reverse_compute_at(consumer, loop)
    except ScheduleError:
        return set()
    _vectorize(schedule, schedule.get_loops(consumer)[-1])
    return {str(schedule.get(consumer).name_hint)}


def _extents(schedule: Schedule, block: SBlockRV) -> list[int] | None:
    """Of a block without a reduction."""
    axes = schedule.get(block).iter_vars
    if any(axis.iter_type != _SPATIAL for axis in axes):
        return None
    return [int(axis.dom.extent) for axis in axes]


def _touches_truths(block: s_tir.SBlock) -> bool:
    """TVM 0.27 loads vectors of bool as bytes and does not make truths of them."""
    return any(str(region.source.dtype) == "bool" for region in (*block.reads, *block.writes))


def _vectorize(schedule: Schedule, loop: LoopRV) -> list[LoopRV]:
    """Turn the inner part of a loop into vectors; returns what is left around it."""
    extent = int(schedule.get(loop).extent)
    lanes = next((n for n in _LANES if extent % n == 0), None)
    if lanes is None:
        return [loop]
    around, vector = schedule.split(loop, [None, lanes])
    schedule.vectorize(vector)
    return [around]
