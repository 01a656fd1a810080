"""Give every tensor between two kernels its place in memory, once and for all runs.

Requires: every kernel is called by `call_tir`.
Ensures: each tensor has its place, and each output memory of its own.
"""

from __future__ import annotations

import math

import tvm
from tvm import relax

from relay_passes.copy_outputs import copy_outputs
from relay_passes.ir.rewrite import bindings, dtype_of, is_call, shape_of
from relay_passes.write_in_place import write_in_place

plan_memory = tvm.transform.Sequential(
    [
        relax.transform.RewriteDataflowReshape(),
        copy_outputs,
        write_in_place,
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
    ]
)


def activation_bytes(mod: tvm.IRModule) -> int:
    """The most memory that a run takes besides inputs and constants, in bytes, of a module after
    `plan_memory`: the planned places, the results, and the largest workspace of a kernel. Kernels run one
    after another; what they keep in registers or on the stack is not counted."""
    planned = 0
    for binding in bindings(mod):
        value = binding.value
        if is_call(value, "relax.memory.alloc_storage"):
            planned += int(value.args[0].values[0])
        elif is_call(value, "relax.builtin.alloc_tensor"):
            items = tvm.DataType(dtype_of(binding.var)).itemsize
            planned += items * math.prod(shape_of(binding.var))
    kernels = {g: f for g, f in mod.functions.items() if isinstance(f, tvm.tirx.PrimFunc)}
    placed = _place_buffers(tvm.IRModule(kernels)).functions.values()
    return planned + max(map(_workspace, placed), default=0)


# What a block of TVM's own kernels allocates is counted where its loop needs it, and as much as that needs.
_place_buffers = tvm.transform.Sequential(
    [
        tvm.s_tir.transform.LowerInitBlock(),
        tvm.s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        tvm.s_tir.transform.ConvertBlocksToOpaque(),
        tvm.s_tir.transform.CompactBufferAllocation(),
        tvm.s_tir.transform.LowerOpaqueBlock(),
    ]
)


def _workspace(kernel: tvm.tirx.PrimFunc) -> int:
    scopes = tvm.s_tir.analysis.calculate_allocated_bytes(kernel)
    return sum(int(of_function.get("global", 0)) for of_function in scopes.values())
