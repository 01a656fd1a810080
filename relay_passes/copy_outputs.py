"""Give every output memory of its own: what `main` returns is written by a kernel, and for that output alone.

A network may return an input, a constant, or one tensor twice, also in another shape. Its caller, who may
write to what he was given, would write there; and a network that does nothing else would have no kernel.

Requires: kernels are `call_tir` already.
Ensures: each output is written by a kernel, for that output alone.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, te

from relay_passes.ir.rewrite import Env, definitions, is_call, rewrite, substitute


@tvm.transform.module_pass(opt_level=0, name="copy_outputs")
def copy_outputs(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """mod: kernels are `call_tir` already, and views of a tensor are `reshape`."""
    defined = definitions(mod)
    owned: set[Any] = set()

    def source(expr: relax.Expr) -> relax.Expr:
        """What a name stands for: the variable of a call, an item of that, a parameter, constant or tuple."""
        if isinstance(expr, relax.Var):
            value = defined.get(expr)
            return expr if value is None or isinstance(value, relax.Call) else source(value)
        if isinstance(expr, relax.TupleGetItem):
            whole = source(expr.tuple_value)
            is_tuple = isinstance(whole, relax.Tuple)
            return source(whole.fields[expr.index]) if is_tuple else relax.TupleGetItem(whole, expr.index)
        return expr

    def output(builder: relax.BlockBuilder, expr: relax.Expr, env: Env) -> relax.Expr:
        expr = source(expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([output(builder, field, env) for field in expr.fields])
        item = isinstance(expr, relax.TupleGetItem)
        whole, index = (expr.tuple_value, expr.index) if item else (expr, None)
        new = substitute(expr, env)
        if is_call(defined.get(whole), "relax.call_tir") and (whole, index) not in owned:
            owned.add((whole, index))
            return builder.emit(new) if item else new
        return builder.emit_te(_copy, new, primfunc_name_hint="copy_output")

    return rewrite(mod, lambda builder, var, value: value, output)


def _copy(tensor: te.Tensor) -> te.Tensor:
    return te.compute(tensor.shape, lambda *indices: tensor(*indices))
