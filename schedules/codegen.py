"""TVM's code generation, with the scratch of a kernel on the stack.

TVM takes what a kernel allocates from a pool, in every task of a parallel loop anew, unless it is of scope
`global` and under 1 KB. The accumulators of a tile are of scope `local`: from the pool they cost more than a
tile's sums do, and LLVM cannot keep them in registers.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx

from schedules.parts.apart import share_called

# Bytes, of one buffer and of all those of a kernel: a thread has 128 KB of stack where it has least (musl).
STACK_OF_BUFFER = 4 << 10
STACK_OF_KERNEL = 16 << 10

# Instructions of a loop that LLVM writes out as a whole, by its own count.
UNROLLED = 150
# LLVM's names of cores to which, by its own model, a load of two vectors costs more than two loads of one. It
# makes pairs for them all the same, and then reads neither vector where it is needed.
PAIRS_ARE_SLOW = frozenset({"cortex-a55"})

_PIPELINE = "bibench"
_ON_STACK = {"disable_lower_builtin": tirx.IntImm("int32", 1)}


def generate_code(module: tvm.IRModule, target: tvm.target.Target) -> Any:
    """The executable of a module whose kernels have their schedules."""
    # Shapes are static and checked at the door; a check in each kernel is 5 KB each and no safer.
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        return tvm.compile(
            module, target=sparing(target), relax_pipeline=_VIRTUAL_MACHINE, tir_pipeline=_PIPELINE
        )


def sparing(target: tvm.target.Target) -> tvm.target.Target:
    """The target with LLVM's limit of `-O2` to the loops that it writes out as a whole, where it is an Arm.

    Kernels write out themselves what is worth it. With the limit of `-O3` LLVM does so with the pixels of an
    epilogue besides: a sixth of a ResNet-18's code, which spills registers and executes as many instructions.
    Cores to which two loads of 16 bytes cost less than one of a pair get the two.
    """
    description = dict(target.export())
    if "arm_cpu" not in target.keys or "cl-opt" in description:
        return target
    description["cl-opt"] = [f"-unroll-threshold-aggressive:uint={UNROLLED}"]
    if description.get("mcpu") in PAIRS_ARE_SLOW:
        description["mattr"] = [*description.get("mattr", []), "+slow-paired-128"]
    return tvm.target.Target(description)


# TVM's own, but for `reshape`: it would make kernels, which copy, of what are views of one tensor; and tuples
# that nothing reads are left out, which it makes of the outputs of each kernel that has several.
_VIRTUAL_MACHINE = tvm.transform.Sequential(
    [
        relax.backend.DispatchSampling(),
        relax.backend.DispatchSortScan(),
        relax.transform.LegalizeOps(skip_ops=["relax.reshape"]),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.LowerAllocTensor(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.DeadCodeElimination(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
)


@tirx.transform.prim_func_pass(opt_level=0, name="keep_scratch_on_stack")
def keep_scratch_on_stack(
    function: tirx.PrimFunc, mod: tvm.IRModule, context: tvm.transform.PassContext
) -> tirx.PrimFunc:
    """Small buffers of a lowered kernel, until it has STACK_OF_KERNEL of them."""
    left = STACK_OF_KERNEL

    def keep(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
        nonlocal left
        buffer = allocation.buffer
        if not all(isinstance(extent, tirx.IntImm) for extent in buffer.shape):
            return allocation
        dtype = tvm.DataType(str(buffer.dtype))
        size = math.prod(int(extent) for extent in buffer.shape) * dtype.itemsize * dtype.lanes
        if size > min(left, STACK_OF_BUFFER):
            return allocation
        left -= size
        return tirx.AllocBuffer(buffer, {**allocation.annotations, **_ON_STACK})

    return function.with_body(tvm_ffi.structural_map(function.body, (tirx.AllocBuffer, keep)))


def _pipeline() -> tuple[Any, Any, Any]:
    """TVM's own, which merges buffers where it can, between `share_called` and `keep_scratch_on_stack`."""
    lower, finish_host, finish_device = tirx.get_tir_pipeline("s_tir")
    passes = [share_called, lower, keep_scratch_on_stack]
    return tvm.transform.Sequential(passes), finish_host, finish_device


tirx.register_tir_pipeline(_PIPELINE, _pipeline)
