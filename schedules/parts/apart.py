"""The sums of a tile as a function of their own, which kernels of the same sums share.

What becomes of a sum differs from layer to layer; how it is made is the same for all layers of a stage, and
it is most of a kernel's code. A kernel carries the functions that it calls as an attribute, by names that
mean something in it alone; when code is made of a module, those that are alike become one (`share_called`).
The attribute holds them as JSON: TVM cannot print a function that has another for an attribute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, GlobalVar, Op
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.tirx.buffer import buffer_data_pointer_type

CALLED = "bibench.called"


class Called:
    """The functions of the kernel that is being written."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of each function, as JSON

    def call(self, function: tirx.PrimFunc, *places: Any) -> None:
        """Emit a call. places: for each parameter the element at which its tensor begins."""
        name = self._names.setdefault(tvm.ir.save_json(function), f"sums{len(self._names)}")
        T.evaluate(T.call_extern("int32", name, *(T.address_of(place) for place in places)))

    def carried_by(self, kernel: tirx.PrimFunc) -> tirx.PrimFunc:
        functions = {name: function for function, name in self._names.items()}
        return kernel.with_attr(CALLED, functions) if functions else kernel


def function_of(parameters: dict[str, tuple[int, str]], body: Callable[..., None]) -> tirx.PrimFunc:
    """parameters: name -> elements and dtype; body(buffers) emits what is done with them."""
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        buffers = [T.arg(name, T.buffer((size,), dtype)) for name, (size, dtype) in parameters.items()]
        with T.sblock("root"):
            body(*buffers)
    return builder.get()


def over_pointers(
    function: tirx.PrimFunc, attributes: dict[str, Any], *, inlined: bool = True
) -> tirx.PrimFunc:
    """A function of tensors as one of their addresses, which returns an int32. inlined: LLVM may put it where
    it is called.

    Each tensor begins at its address, also where the function leaves open how far behind (TVM's scatters do).
    """
    function = _at_the_beginning(function)
    pointers = [tirx.Var(buffer.name, buffer_data_pointer_type(buffer)) for buffer in function.params]
    views = [
        tirx.DeclBuffer(buffer, data=pointer)
        for buffer, pointer in zip(function.params, pointers, strict=True)
    ]
    body: tirx.Stmt = tirx.SeqStmt([*views, function.body])
    if not inlined:  # such a scope is a function of its own, which is never inlined
        body = tirx.AttrStmt(pointers[0], "compute_scope", "sums", body)
    given = {"tirx.noalias": True, "s_tir": True, **attributes}
    node = tvm.ir.make_node("ir.DictAttrs", **given)
    return tirx.PrimFunc(pointers, body, tvm.ir.PrimType("int32"), node)


def _at_the_beginning(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """With tensors that begin where their memory does: TVM's scatters take any offset, by a variable that
    only its own calling convention binds."""
    return function.specialize(
        {
            buffer: tirx.decl_buffer(buffer.shape, buffer.dtype, buffer.name, data=buffer.data, elem_offset=0)
            for buffer in function.params
            if isinstance(buffer.elem_offset, tirx.Var)
        }
    )


def carried(kernel: tirx.PrimFunc) -> dict[str, Any]:
    """The attribute of a kernel that calls functions; empty for any other."""
    attributes = kernel.attrs or {}
    return {CALLED: attributes[CALLED]} if CALLED in attributes else {}


@tvm.transform.module_pass(opt_level=0, name="share_called")
def share_called(module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
    """The functions that kernels carry become functions of the module, each once, for the kernel's target.

    LLVM may not inline them: it takes the sums there and here for different ones, since their tensors have
    different names.
    """
    names: dict[str, GlobalVar] = {}  # of each function, as JSON
    made: dict[GlobalVar, Any] = {}
    for variable, kernel in module.functions.items():
        called = carried(kernel).get(CALLED, {}) if isinstance(kernel, tirx.PrimFunc) else {}
        here: dict[str, GlobalVar] = {}
        for name, function in called.items():
            if function not in names:
                target = {"target": kernel.attrs["target"]} if "target" in kernel.attrs else {}
                names[function] = GlobalVar(f"sums_of_tile{len(names)}")
                made[names[function]] = over_pointers(tvm.ir.load_json(function), target, inlined=False)
            here[name] = names[function]
        made[variable] = _calling(kernel, here) if here else kernel
    return tvm.IRModule(made, attrs=module.attrs)


def _calling(kernel: tirx.PrimFunc, names: dict[str, GlobalVar]) -> tirx.PrimFunc:
    def renamed(call: Call) -> Call:
        if not isinstance(call.op, Op) or call.op.name != "tirx.call_extern":
            return call
        name, *places = call.args
        known = names.get(str(name.value))
        return Call(known, places, ret_ty=call.ty) if known is not None else call

    return kernel.without_attr(CALLED).with_body(tvm_ffi.structural_map(kernel.body, (Call, renamed)))
