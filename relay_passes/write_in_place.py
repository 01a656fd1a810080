"""Let an output of a kernel take the place of an operand that nothing reads any more: the residual of a
network is added where it lies, and takes no second tensor.

Requires: kernels are `call_tir` already, views of a tensor are `reshape`, and what `main` returns is written
for that output alone.
Ensures: a kernel whose attributes allow it has one parameter for both, if each of its calls does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx

from relay_passes.ir.rewrite import bindings, definitions, is_call, rewrite
from schedules.parts.write_back import REPLACED, REPLACING

# What has memory: a parameter, or the call that writes it, and which of its outputs.
Tensor = tuple[relax.Var, int]


@tvm.transform.module_pass(opt_level=0, name="write_in_place")
def write_in_place(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    memory = _Memory(mod)
    pairs = {kernel: pair for kernel in memory.kernels if (pair := _pair(mod[kernel]))}
    for binding in memory.calls:
        kernel = binding.value.args[0]
        if kernel in pairs and not memory.allows(binding, *pairs[kernel]):
            del pairs[kernel]

    united: dict[Any, tvm.ir.GlobalVar] = {}

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if not is_call(value, "relax.call_tir") or value.args[0] not in pairs:
            return value
        kernel, arguments = value.args[:2]
        if kernel not in united:
            united[kernel] = builder.add_func(_united(mod[kernel]), kernel.name_hint)
        operand, output = pairs[kernel]
        types = list(var.ty.fields) if isinstance(var.ty, relax.TupleType) else [var.ty]
        places = [operand if i == output else -1 for i in range(len(types))]
        return relax.call_tir_inplace(united[kernel], arguments, places, types)

    # A name is free for the new kernel where the old one is not.
    return rewrite(tvm.IRModule({k: f for k, f in mod.functions.items() if k not in pairs}), visit)


class _Memory:
    """calls: the bindings of kernels' results, in order. kernels: those that they call."""

    def __init__(self, mod: tvm.IRModule):
        self._defined = definitions(mod)
        self.calls = [b for b in bindings(mod) if is_call(b.value, "relax.call_tir")]
        self.kernels = {binding.value.args[0] for binding in self.calls}
        self._returned = set(self._tensors(mod["main"].body.body))
        self._last_reader = {
            tensor: binding.var
            for binding in bindings(mod)
            if is_call(binding.value) and not is_call(binding.value, "relax.reshape")
            for tensor in self._tensors(binding.value)
        }

    def allows(self, binding: relax.VarBinding, operand: int, output: int) -> bool:
        """Whether nothing else needs what the operand of this call is, and its memory is ours."""
        arguments = list(binding.value.args[1].fields)
        read = list(self._tensors(binding.value))
        place = next(self._tensors(arguments[operand]), None)
        return (
            place is not None
            and is_call(self._defined.get(place[0]), "relax.call_tir")
            and read.count(place) == 1
            and self._last_reader[place] == binding.var
            and not {place, (binding.var, output)} & self._returned
        )

    def _tensors(self, expr: relax.Expr, index: int = 0) -> Iterator[Tensor]:
        """Of an expression, all that it reads or hands on; of a tuple's name, the item."""
        if isinstance(expr, relax.Var):
            value = self._defined.get(expr)
            if value is None or is_call(value) and not is_call(value, "relax.reshape"):
                yield expr, index
            else:
                yield from self._tensors(value, index)
        elif isinstance(expr, relax.TupleGetItem):
            yield from self._tensors(expr.tuple_value, expr.index)
        elif isinstance(expr, relax.Tuple):
            for field in expr.fields:
                yield from self._tensors(field)
        elif isinstance(expr, relax.Call):
            for argument in expr.args:
                yield from self._tensors(argument)


def _pair(kernel: Any) -> tuple[int, int] | None:
    """Which argument may be written to, and which output may go there."""
    if REPLACED not in kernel.attrs:
        return None
    names = [parameter.name for parameter in kernel.params]
    first_output = names.index("output0")
    return names.index(kernel.attrs[REPLACED]), names.index(kernel.attrs[REPLACING]) - first_output


def _united(kernel: tirx.PrimFunc) -> tirx.PrimFunc:
    """The kernel that writes to what it reads."""
    named = {parameter.name: parameter for parameter in kernel.params}
    read, written = named[kernel.attrs[REPLACED]], named.pop(kernel.attrs[REPLACING])

    def unite(var: tvm.ir.Var) -> tvm.ir.Var:
        return read if var.same_as(written) else var

    body = tvm_ffi.structural_map(kernel.body, (tvm.ir.Var, unite))
    new = tirx.PrimFunc(list(named.values()), body, kernel.ret_type, kernel.attrs)
    return new.without_attr(REPLACED).without_attr(REPLACING)
