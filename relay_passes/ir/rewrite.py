"""Walking over the one dataflow block of `main` and building it anew, the form that all passes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

Env = dict[relax.Var, relax.Expr]  # old variable -> new expression
Visitor = Callable[[relax.BlockBuilder, relax.Var, relax.Expr], relax.Expr]
Result = Callable[[relax.BlockBuilder, relax.Expr, Env], relax.Expr]


def bindings(mod: tvm.IRModule) -> list[relax.VarBinding]:
    """The bindings of `main`, in order."""
    return [b for block in mod["main"].body.blocks for b in block.bindings]


def definitions(mod: tvm.IRModule) -> dict[relax.Var, relax.Expr]:
    return {b.var: b.value for b in bindings(mod)}


def is_call(expr: relax.Expr | None, *names: str) -> bool:
    """Whether this is a call of one of these operators; without names, of any operator."""
    return (
        isinstance(expr, relax.Call)
        and isinstance(expr.op, tvm.ir.Op)
        and (not names or expr.op.name in names)
    )


def made_by(builder: relax.BlockBuilder, expr: relax.Expr) -> Any:
    """What computes a variable; None for a parameter; whatever is no variable as it is."""
    return builder.lookup_binding(expr) if isinstance(expr, relax.Var) else expr


def read_vars(value: relax.Expr) -> list[relax.Var]:
    """The variables in an expression, each once."""
    found: list[relax.Var] = []
    relax.analysis.post_order_visit(value, lambda e: found.append(e) if isinstance(e, relax.Var) else None)
    return list(dict.fromkeys(found))


def users(mod: tvm.IRModule) -> dict[relax.Var, list[relax.VarBinding]]:
    """Which bindings read each variable; the result of `main` counts as no binding but see `is_result`."""
    found: dict[relax.Var, list[relax.VarBinding]] = {}
    for binding in bindings(mod):
        for var in read_vars(binding.value):
            found.setdefault(var, []).append(binding)
    return found


def is_constant(expr: relax.Expr | None) -> bool:
    return isinstance(expr, tvm.ir.GenericConst)


def is_tensor(expr: relax.Expr) -> bool:
    return isinstance(getattr(expr, "ty", None), relax.TensorType)


def constant_value(expr: relax.Expr) -> np.ndarray:
    return expr.value.numpy()


def constant_of(values: np.ndarray) -> relax.Expr:
    """A constant of the array's own type: TVM's default makes 32 bits of 64."""
    return relax.const(values, values.dtype)


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expr.ty.shape)


def dtype_of(expr: relax.Expr) -> str:
    return str(expr.ty.dtype)


def substitute(value: relax.Expr, env: Env) -> relax.Expr:
    """The same expression over the new variables."""
    if isinstance(value, relax.Var):
        return env.get(value, value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([substitute(field, env) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(value.tuple_value, env), value.index)
    if isinstance(value, relax.Call):
        return relax.Call(value.op, [substitute(arg, env) for arg in value.args], value.attrs, value.ty_args)
    return value


def rewrite(mod: tvm.IRModule, visit: Visitor, result: Result | None = None) -> tvm.IRModule:
    """Build `main` again: `visit(builder, old variable, value over new variables)` returns what to bind, and
    `result(builder, old result, env)` what `main` returns; left out, the same."""
    main = mod["main"]
    builder = relax.BlockBuilder()
    env: Env = {}
    with builder.function("main", list(main.params), attrs=dict(main.attrs or {})):
        with builder.dataflow():
            for binding in bindings(mod):
                value = visit(builder, binding.var, substitute(binding.value, env))
                env[binding.var] = value if isinstance(value, relax.Var) else builder.emit(value)
            body = main.body.body
            output = builder.emit_output(result(builder, body, env) if result else substitute(body, env))
        builder.emit_func_output(output)
    new = builder.get()
    for name, function in mod.functions.items():
        if name.name_hint != "main":
            new[name] = function
    return relax.transform.DeadCodeElimination()(new)


def number(expr: relax.Expr) -> float | None:
    """The one number that a constant holds everywhere."""
    if is_constant(expr):
        values = constant_value(expr)
        if values.size and values.dtype != np.bool_ and (values == values.flat[0]).all():
            return float(values.flat[0])
    elif hasattr(expr, "value") and isinstance(expr.value, (int, float)):
        return float(expr.value)
    return None
