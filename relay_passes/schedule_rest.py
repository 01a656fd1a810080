"""A schedule for every kernel that is not ours: rows in parallel, channels in vectors.

Pools and element-wise work are channels last by now, so the last axis of what a block writes is the one that
lies together in memory. A reduction over other axes is turned inside out: its loops go around the vector, not
into it.
"""

from __future__ import annotations

import math

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV

from schedules.write_back import SCHEDULED

_LANES = (16, 8, 4)
_SPATIAL = tirx.IterVar.DataPar
_WORTH_THREADS = 1 << 14  # elements; fewer are done before a second thread has woken up


@tvm.transform.module_pass(opt_level=0, name="schedule_rest")
def schedule_rest(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    new = tvm.IRModule(mod.functions, attrs=mod.attrs)
    for gvar, function in mod.functions.items():
        if isinstance(function, tirx.PrimFunc) and SCHEDULED not in (function.attrs or {}):
            new[gvar] = _scheduled(function)
    return new


def _scheduled(function: tirx.PrimFunc) -> tirx.PrimFunc:
    schedule = Schedule(function)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        loops = schedule.get_loops(block)
        axes = schedule.get(block).iter_vars
        extents = [int(schedule.get(loop).extent) for loop in loops]
        if len(loops) != len(axes) or not loops:
            continue
        spatial = [loop for loop, axis in zip(loops, axes, strict=True) if axis.iter_type == _SPATIAL]
        reduced = [loop for loop, axis in zip(loops, axes, strict=True) if axis.iter_type != _SPATIAL]
        if not spatial:
            continue
        vectors = not _touches_truths(schedule.get(block))
        if reduced:
            schedule.reorder(*spatial[:-1], *reduced, spatial[-1])
            outer = spatial[:-1]
            if vectors:
                _vectorize(schedule, spatial[-1])
        else:
            outer = [schedule.fuse(*spatial)]
            if vectors:
                outer = _vectorize(schedule, outer[0])
        if outer and math.prod(extents) >= _WORTH_THREADS:
            schedule.parallel(schedule.fuse(*outer))
        # Last: a block without its initial value is no reduction any more, and may not be touched.
        if reduced:
            schedule.decompose_reduction(block, reduced[0])
    return schedule.mod["main"]


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
