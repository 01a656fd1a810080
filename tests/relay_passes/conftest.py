"""Small networks in Relax, run before and after a pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.grow_halos import grow_halos
from relay_passes.ir.rewrite import bindings, is_call
from relay_passes.lower_kernels import lower_kernels
from schedules.targets.generic import GENERIC

Build = Callable[..., tvm.IRModule]
Run = Callable[..., list[np.ndarray]]
Operators = Callable[[tvm.IRModule], list[str]]


@pytest.fixture(scope="session")
def build() -> Build:
    """`build(body, *shapes)`: a network whose result is `body(emit, *inputs)`, one expression or several."""

    def build(body: Callable[..., Any], *shapes: tuple[int, ...]) -> tvm.IRModule:
        builder = relax.BlockBuilder()
        inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
        with builder.function("main", inputs):
            with builder.dataflow():
                result = body(builder.emit, *inputs)
                result = relax.Tuple(list(result)) if isinstance(result, tuple) else result
                result = builder.emit_output(result)
            builder.emit_func_output(result)
        return builder.get()

    return build


@pytest.fixture(scope="session")
def run() -> Run:
    """The outputs of a network, however far it is lowered."""

    def run(mod: tvm.IRModule, *arrays: np.ndarray) -> list[np.ndarray]:
        mod, _ = find_binary(mod, GENERIC)
        mod = lower_kernels(grow_halos(mod), GENERIC).module
        # LLVM has nothing to make faster here, and is quicker so.
        target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
        machine = relax.VirtualMachine(tvm.compile(mod, target=target), tvm.cpu())
        result = machine["main"](*map(tvm.runtime.tensor, arrays))
        return [result.numpy()] if hasattr(result, "numpy") else [item.numpy() for item in result]

    return run


@pytest.fixture(scope="session")
def operators() -> Operators:
    """The names of a network's operators in order; of a `call_tir`, the name of the kernel."""

    def name_of(call: relax.Call) -> str:
        if is_call(call, "relax.call_tir"):
            return call.args[0].name_hint
        return call.op.name.removeprefix("relax.").removeprefix("nn.")

    return lambda mod: [name_of(b.value) for b in bindings(mod) if is_call(b.value)]
