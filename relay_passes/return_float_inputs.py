"""For calibration: let `main` return, besides its result, what goes into each float layer.

Requires: that `find_binary` has run.
Ensures: what `main` computes is the same; it returns more.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import Env, rewrite, substitute
from relay_passes.quantize_float_layers import is_quantizable


def return_float_inputs(mod: tvm.IRModule) -> tuple[tvm.IRModule, tuple[str, ...]]:
    """The module, and the layers whose inputs follow the result of `main`, in order."""
    names: list[str] = []
    inputs: list[relax.Expr] = []

    def visit(builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if is_quantizable(value):
            names.append(attributes_of(value, Contraction).name)
            inputs.append(value.args[0])
        return value

    def result(builder: relax.BlockBuilder, body: relax.Expr, env: Env) -> relax.Expr:
        return relax.Tuple([substitute(body, env), *inputs])

    return rewrite(mod, visit, result), tuple(names)
