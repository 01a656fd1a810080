"""Which kernels threads share out: those that take longer than it takes to wake a thread up.

What a kernel takes is reckoned from its products, at the rate of the processor, and from the bytes that it
reads and writes.
"""

from __future__ import annotations

import math

import tvm
import tvm_ffi
from tvm import tirx

from relay_passes.ir.operators import Contraction
from schedules.kernels.depthwise import is_depthwise
from schedules.targets.kernel_target import KernelTarget

WORTH_WAKING = 10 / 3
"""So many times what waking a thread takes: two threads save half of what a kernel takes at most."""
BYTES_A_NS = 10


def shared_or_serial(
    function: tirx.PrimFunc, target: KernelTarget, layer: Contraction | None, *, binary: bool
) -> tirx.PrimFunc:
    """The kernel, its parallel loops serial where it is too small. layer: what it computes, if it is one."""
    size = sum(
        math.prod(int(extent) for extent in buffer.shape) * tvm.DataType(str(buffer.dtype)).itemsize
        for buffer in function.params
    )
    nanoseconds = size / BYTES_A_NS
    if layer is not None:
        fast = binary and not is_depthwise(layer.conv, packed=True)
        nanoseconds += layer.conv.macs / (target.binary_rate if fast else target.float_rate)
    return function if nanoseconds >= WORTH_WAKING * target.wake_ns else _serial(function)


def _serial(function: tirx.PrimFunc) -> tirx.PrimFunc:
    def alone(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return function.with_body(tvm_ffi.structural_map(function.body, (tirx.For, alone)))
