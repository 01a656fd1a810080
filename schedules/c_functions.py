"""TVM's code generation, with kernels as C functions that need no runtime.

A kernel is one or more steps: `int step(void *tensor…, void *scratch, void *own, int task, int tasks)`. A
tensor is a pointer with the alignment of its elements. What a kernel allocates is on the stack where it is
small, and else in memory of the caller: `scratch` is for all steps and tasks, `own` for one task. Several
tasks may do their shares of a parallel step at once; the other steps have one task.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, PointerType, PrimType

from schedules.codegen import keep_scratch_on_stack, sparing
from schedules.fence_conversions import fence_conversions
from schedules.parts.apart import carried, over_pointers, share_called

# Bytes, of one buffer and of all those of a kernel. Firmware has kilobytes of stack.
STACK_OF_BUFFER = 1 << 10
STACK_OF_KERNEL = 2 << 10

_ALIGNMENT = 64  # bytes, of what lies in the scratch
_ON_STACK = {"disable_lower_builtin": tirx.IntImm("int32", 1)}
_SCRATCH, _OWN = (tirx.Var(name, PointerType(PrimType("uint8"))) for name in ("scratch", "own"))
_TASK, _TASKS = (tirx.Var(name, "int32") for name in ("task", "tasks"))
_HELIUM = "thumbv8.1m"  # what a triple begins with
_IN_C = 1  # TVM's calling convention of functions that take what they are declared to take


@dataclass(frozen=True)
class Step:
    """symbol: of the function in the text."""

    symbol: str
    parallel: bool


@dataclass(frozen=True)
class Functions:
    """text: LLVM's, optimised; steps: of each kernel, in order; scratch and own: the most bytes that one step
    takes of either."""

    text: str
    steps: dict[str, tuple[Step, ...]]
    scratch: int
    own: int


def generate_functions(
    finished: tvm.IRModule, target: tvm.target.Target, prefix: str, attributes: str = ""
) -> Functions:
    """The kernels of a module that have their schedules; prefix: what the symbols begin with; attributes: of
    LLVM, for all functions."""
    kernels = {
        name: _over_pointers(function, f"{prefix}_{name.name_hint}")
        for name, function in finished.functions.items()
        if isinstance(function, tirx.PrimFunc)
    }
    lower, finish, _ = tirx.get_tir_pipeline("s_tir")
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        bound = tirx.transform.BindTarget(target.with_host(target))(tvm.IRModule(kernels))
        lowered = dict(lower(share_called(bound)).functions.items())
        split = {name.name_hint: _Steps(lowered.pop(name)) for name in kernels}
        steps = {symbol: step for kernel in split.values() for symbol, step in kernel.functions.items()}
        # What the kernels call, by the very variables by which they call it.
        on_stack = keep_scratch_on_stack(tvm.IRModule(lowered)).functions
        module = tvm.IRModule({**steps, **on_stack})
        made = tvm_ffi.get_global_func("target.build.llvm")(finish()(module), sparing(target))
    text = _local(str(made.inspect_source("ll")), prefix, attributes)
    if str(target.attrs.get("mtriple", "")).startswith(_HELIUM):
        text = fence_conversions(text)
    return Functions(
        text=text,
        steps={name: kernel.steps for name, kernel in split.items()},
        scratch=max((kernel.scratch for kernel in split.values()), default=0),
        own=max((kernel.own for kernel in split.values()), default=0),
    )


def _over_pointers(kernel: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    """A function of tensors as one of their addresses."""
    return over_pointers(kernel, {"global_symbol": symbol, "calling_conv": _IN_C, **carried(kernel)})


class _Steps:
    """The steps of a lowered kernel, and how many bytes of memory they take."""

    def __init__(self, kernel: tirx.PrimFunc):
        self.scratch = self.own = 0
        self.functions: dict[str, tirx.PrimFunc] = {}
        self._left = STACK_OF_KERNEL
        statements = list(kernel.body.seq) if isinstance(kernel.body, tirx.SeqStmt) else [kernel.body]
        shared = [s for s in statements if isinstance(s, (tirx.DeclBuffer, tirx.AllocBuffer))]
        groups: list[tuple[bool, list[tirx.Stmt]]] = []
        # A name that is bound between the steps would have to be known in all.
        whole = any(isinstance(statement, tirx.Bind) for statement in statements)
        for statement in statements:
            if any(statement.same_as(other) for other in shared) and not whole:
                continue
            parallel = not whole and _is_parallel(statement)
            if not groups or parallel or groups[-1][0]:
                groups.append((parallel, []))
            groups[-1][1].append(statement)
        self._alone = len(groups) == 1
        views = [] if whole else [self._place(statement) for statement in shared]
        symbol = str(kernel.attrs["global_symbol"])
        steps = []
        for index, (parallel, group) in enumerate(groups):
            step = Step(f"{symbol}.{index}", parallel)
            self.functions[step.symbol] = self._function(kernel, step, views, group)
            steps.append(step)
        self.steps = tuple(steps)

    def _place(self, statement: tirx.Stmt) -> tirx.Stmt:
        """A buffer of the whole kernel, for each of its steps."""
        if not isinstance(statement, tirx.AllocBuffer):
            return statement
        return (self._alone and self._on_stack(statement)) or self._in_scratch(statement)

    def _function(
        self, kernel: tirx.PrimFunc, step: Step, views: list[tirx.Stmt], group: list[tirx.Stmt]
    ) -> tirx.PrimFunc:
        def place(allocation: tirx.AllocBuffer) -> tirx.Stmt:
            in_memory = self._in_own if step.parallel else self._in_scratch
            return self._on_stack(allocation) or in_memory(allocation)

        def in_turn(loop: tirx.For) -> tirx.For:
            return _serial(loop, loop.min, loop.extent) if loop.kind == tirx.ForKind.PARALLEL else loop

        body = [
            tvm_ffi.structural_map(statement, [(tirx.AllocBuffer, place), (tirx.For, in_turn)])
            for statement in group
        ]
        if step.parallel:
            (loop,) = body
            first, last = (tirx.truncdiv(loop.extent * task, _TASKS) for task in (_TASK, _TASK + 1))
            body = [_serial(loop, loop.min + first, last - first)]
        parameters = [*kernel.params, _SCRATCH, _OWN, _TASK, _TASKS]
        function = tirx.PrimFunc(parameters, tirx.SeqStmt([*views, *body]), kernel.ret_type, kernel.attrs)
        named = function.without_attr("tirx.is_entry_func").with_attr("global_symbol", step.symbol)
        return named

    def _on_stack(self, allocation: tirx.AllocBuffer) -> tirx.AllocBuffer | None:
        size = _size(allocation.buffer)
        if size > min(self._left, STACK_OF_BUFFER):
            return None
        self._left -= size
        return tirx.AllocBuffer(allocation.buffer, {**dict(allocation.annotations or {}), **_ON_STACK})

    def _in_scratch(self, allocation: tirx.AllocBuffer) -> tirx.DeclBuffer:
        start, self.scratch = self.scratch, self.scratch + _size(allocation.buffer)
        return _view(allocation.buffer, _SCRATCH, start)

    def _in_own(self, allocation: tirx.AllocBuffer) -> tirx.DeclBuffer:
        start, self.own = self.own, self.own + _size(allocation.buffer)
        return _view(allocation.buffer, _OWN, start)


def _is_parallel(statement: tirx.Stmt) -> bool:
    return isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL


def _serial(loop: tirx.For, start: Any, extent: Any) -> tirx.For:
    kind = tirx.ForKind.SERIAL
    return tirx.For(loop.loop_var, start, extent, kind, loop.body, None, loop.annotations, loop.step)


def _size(buffer: tirx.Buffer) -> int:
    """In bytes, up to the next multiple of _ALIGNMENT."""
    size = math.prod(int(extent) for extent in buffer.shape) * tvm.DataType(str(buffer.dtype)).itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _view(buffer: tirx.Buffer, memory: tirx.Var, start: int) -> tirx.DeclBuffer:
    pointer = tirx.buffer.buffer_data_pointer_type(buffer)
    offset = tirx.IntImm("int32", start)
    address = Call("tirx.handle_add_byte_offset", [memory, offset], ret_ty=pointer)
    return tirx.DeclBuffer(buffer, data=address)


def _local(text: str, prefix: str, attributes: str) -> str:
    """The functions seen in their own module alone, and without tables for unwinding, which would name a
    function of the C++ runtime on 32-bit Arm."""
    ours = rf"^define (?:dllexport |weak |dso_local )*(?=[^@]*@({prefix}|_)_)"
    text = re.sub(ours, "define internal ", text, flags=re.M)
    return re.sub(r"^(attributes #\d+ = \{)", rf"\1 nounwind {attributes}", text, flags=re.M)
