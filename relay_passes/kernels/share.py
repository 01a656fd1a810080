"""Which kernels threads share out: those that take longer than it takes to wake a thread up.

What a kernel takes is reckoned from its products and from the bytes that it reads and writes, at the rates of
the processor.
"""

from __future__ import annotations

import math

import tvm
import tvm_ffi
from tvm import tirx

from relay_passes.ir.operators import Contraction
from schedules.kernels.depthwise import is_depthwise
from schedules.parts.write_back import TOUCHED
from schedules.targets.kernel_target import KernelTarget

WORTH_WAKING = 10 / 3
"""So many times what waking a thread takes: two threads save half of what a kernel takes at most."""


def shared_or_serial(
    function: tirx.PrimFunc, target: KernelTarget, layer: Contraction | None, *, binary: bool
) -> tirx.PrimFunc:
    """The kernel, its parallel loops serial where it is too small. layer: what it computes, if it is one."""
    products_ns = 0.0
    if layer is not None:
        fast = binary and not is_depthwise(layer.conv, packed=True)
        products_ns = layer.conv.macs / (target.binary_rate if fast else target.float_rate)
    return function if worth_sharing(function, target, products_ns) else _serial(function)


def worth_sharing(function: tirx.PrimFunc, target: KernelTarget, products_ns: float = 0) -> bool:
    """Whether a kernel takes long enough. products_ns: nanoseconds for what it multiplies."""
    size = (function.attrs or {}).get(TOUCHED) or sum(
        math.prod(int(extent) for extent in buffer.shape) * tvm.DataType(str(buffer.dtype)).itemsize
        for buffer in function.params
    )
    return products_ns + size / target.byte_rate >= WORTH_WAKING * target.wake_ns


def shared_kernels(finished: tvm.IRModule) -> int:
    """How many functions of the module have a loop that threads share out."""
    found = []
    for function in finished.functions.values():
        if isinstance(function, tirx.PrimFunc):
            loops: list[tirx.For] = []
            tvm_ffi.structural_walk(function.body, (tirx.For, loops.append))
            found.append(any(loop.kind == tirx.ForKind.PARALLEL for loop in loops))
    return sum(found)


def _serial(function: tirx.PrimFunc) -> tirx.PrimFunc:
    return function.with_body(tvm_ffi.structural_map(function.body, (tirx.For, in_turn)))


def in_turn(loop: tirx.For) -> tirx.For:
    """The loop, of which threads share out nothing."""
    if loop.kind != tirx.ForKind.PARALLEL:
        return loop
    kind = tirx.ForKind.SERIAL
    return tirx.For(loop.loop_var, loop.min, loop.extent, kind, loop.body, None, loop.annotations, loop.step)
