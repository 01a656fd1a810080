"""For calibration: let `main` return, besides its result, what goes into each float layer.

Requires: that `find_binary` has run.
Ensures: what `main` computes is the same; it returns more.
"""

from __future__ import annotations

import tvm
from tvm import relax

from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import bindings, substitute
from relay_passes.quantize_float_layers import is_quantizable


def return_float_inputs(mod: tvm.IRModule) -> tuple[tvm.IRModule, tuple[str, ...]]:
    """The module, and the layers whose inputs follow the result of `main`, in order."""
    main = mod["main"]
    builder = relax.BlockBuilder()
    env: dict[relax.Var, relax.Expr] = {}
    names: list[str] = []
    inputs: list[relax.Expr] = []
    with builder.function("main", list(main.params), attrs=dict(main.attrs or {})):
        with builder.dataflow():
            for binding in bindings(mod):
                value = substitute(binding.value, env)
                if is_quantizable(value):
                    names.append(attributes_of(value, Contraction).name)
                    inputs.append(value.args[0])
                env[binding.var] = builder.emit(value)
            result = builder.emit_output(relax.Tuple([substitute(main.body.body, env), *inputs]))
        builder.emit_func_output(result)
    return builder.get(), tuple(names)
