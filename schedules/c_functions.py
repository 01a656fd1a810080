"""TVM's code generation, with kernels as C functions: `int kernel(void *tensor…, void *scratch)`.

They need no runtime: a tensor is a pointer with the alignment of its elements, what a kernel allocates lies
in the scratch that its caller gives it, or on the stack where it is small, and loops are serial.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, PointerType, PrimType

# Bytes, of one buffer and of all those of a kernel. Firmware has kilobytes of stack.
STACK_OF_BUFFER = 1 << 10
STACK_OF_KERNEL = 2 << 10

_ALIGNMENT = 64  # bytes, of what lies in the scratch
_ON_STACK = {"disable_lower_builtin": tirx.IntImm("int32", 1)}
_IN_C = 1  # TVM's calling convention of functions that take what they are declared to take


@dataclass(frozen=True)
class Functions:
    """text: LLVM's, optimised, in which a kernel `k` is the function PREFIX_k of the module; scratch: the
    most bytes that one of them takes."""

    text: str
    scratch: int


def generate_functions(finished: tvm.IRModule, target: tvm.target.Target, prefix: str) -> Functions:
    """The kernels of a module that have their schedules."""
    kernels = {
        name: _over_pointers(function, f"{prefix}_{name.name_hint}")
        for name, function in finished.functions.items()
        if isinstance(function, tirx.PrimFunc)
    }
    lower, finish, _ = tirx.get_tir_pipeline("s_tir")
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        bound = tirx.transform.BindTarget(target.with_host(target))(tvm.IRModule(kernels))
        placed = {name: _place_scratch(function) for name, function in lower(bound).functions.items()}
        serial = tvm.IRModule({name: function for name, (function, _) in placed.items()})
        made = tvm_ffi.get_global_func("target.build.llvm")(finish()(serial), target)
    return Functions(
        text=_local(str(made.inspect_source("ll")), prefix),
        scratch=max((size for _, size in placed.values()), default=0),
    )


def _over_pointers(kernel: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    """A function of tensors as one of their addresses."""
    pointers = [
        tirx.Var(buffer.name, tirx.buffer.buffer_data_pointer_type(buffer)) for buffer in kernel.params
    ]
    views = [
        tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(kernel.params, pointers, strict=True)
    ]
    attributes = {"global_symbol": symbol, "calling_conv": _IN_C, "tirx.noalias": True, "s_tir": True}
    return tirx.PrimFunc(
        pointers,
        tirx.SeqStmt([*views, kernel.body]),
        PrimType("int32"),
        tvm.ir.make_node("ir.DictAttrs", **attributes),
    )


def _place_scratch(kernel: tirx.PrimFunc) -> tuple[tirx.PrimFunc, int]:
    """A lowered kernel with serial loops and a last parameter, where its large buffers are; their bytes."""
    scratch = tirx.Var("scratch", PointerType(PrimType("uint8")))
    used = 0
    left = STACK_OF_KERNEL

    def place(allocation: tirx.AllocBuffer) -> tirx.Stmt:
        nonlocal used, left
        buffer = allocation.buffer
        dtype = tvm.DataType(str(buffer.dtype))
        size = math.prod(int(extent) for extent in buffer.shape) * dtype.itemsize * dtype.lanes
        if size <= min(left, STACK_OF_BUFFER):
            left -= size
            return tirx.AllocBuffer(buffer, {**dict(allocation.annotations or {}), **_ON_STACK})
        start = tirx.IntImm("int32", used)
        used += -(-size // _ALIGNMENT) * _ALIGNMENT
        address = Call(
            "tirx.handle_add_byte_offset",
            [scratch, start],
            ret_ty=tirx.buffer.buffer_data_pointer_type(buffer),
        )
        return tirx.DeclBuffer(buffer, data=address)

    def in_turn(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        bounds, kind = (loop.loop_var, loop.min, loop.extent), tirx.ForKind.SERIAL
        return tirx.For(*bounds, kind, loop.body, None, loop.annotations, loop.step)

    body = tvm_ffi.structural_map(kernel.body, [(tirx.AllocBuffer, place), (tirx.For, in_turn)])
    attributes = kernel.without_attr("tirx.is_entry_func").attrs
    return tirx.PrimFunc([*kernel.params, scratch], body, kernel.ret_type, attributes), used


def _local(text: str, prefix: str) -> str:
    """The functions seen in their own module alone, and without tables for unwinding, which would name a
    function of the C++ runtime on 32-bit Arm."""
    ours = rf"^define (?:dllexport |weak |dso_local )*(?=[^@]*@({prefix}|_)_)"
    text = re.sub(ours, "define internal ", text, flags=re.M)
    return re.sub(r"^(attributes #\d+ = \{)", r"\1 nounwind", text, flags=re.M)
