"""How many products a second one core can do when nothing leaves its registers.

Chains of `sum = sum + popcount(sum ^ weight)`, as many as hide the latency, are what every kernel of ours is
made of, without a load or a store; `sum = sum + table[sum]` where it looks up (schedules/parts/tables.py);
`sum = sum * weight + sum` for float layers. No layer can be faster.
`python -m bibench_tvm.measuring.limit` prints both, as `tracks run` keeps them with what it timed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from schedules.parts.tables import WORD as LOOKED_UP

if TYPE_CHECKING:
    from bibench_tvm.compiling.processors import CompileTarget

UNROLLED = 8
STEPS = 1 << 12
ROOFS = {"binary": "xor, popcount, add; or look up, add", "float32": "multiply and add"}


def vectors(target: CompileTarget) -> tuple[int, int]:
    """Bytes of a vector, and as many chains as hide the latency of three operations and leave some registers
    free."""
    return target.kernels.vector_bits // 8, 20 if target.kernels.registers >= 32 else 8


def products_a_call(kind: str, target: CompileTarget) -> int:
    size, chains = vectors(target)
    bits = LOOKED_UP if target.kernels.look_up else 8
    return STEPS * UNROLLED * chains * (bits * size if kind == "binary" else size // 4)


def roof(kind: str, target: CompileTarget) -> Callable[[], Any]:
    """A call of it does `products_a_call` products."""
    import numpy as np
    import tvm
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    dtype = f"uint{target.kernels.word}" if kind == "binary" else "float32"
    size, chains = vectors(target)
    lanes = size // (target.kernels.word // 8 if kind == "binary" else 4)
    look_up = target.kernels.look_up

    def added(old: Any, weight: Any) -> Any:
        if kind != "binary":
            return old * weight + old
        return old + (look_up(weight, old) if look_up else tirx.popcount(old ^ weight))

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_attr({"global_symbol": "roof", "tirx.noalias": True})
        memory = T.arg("memory", T.buffer(((chains + 1) * lanes,), dtype))
        with T.sblock("root"):
            sums = T.alloc_buffer((chains * lanes,), dtype, scope="local")
            for i in range(chains):
                T.buffer_store(sums, memory[T.ramp(i * lanes, 1, lanes)], [T.ramp(i * lanes, 1, lanes)])
            with T.serial(0, STEPS):
                weight = memory[T.ramp(chains * lanes, 1, lanes)]
                for _ in range(UNROLLED):
                    for i in range(chains):
                        at = T.ramp(i * lanes, 1, lanes)
                        T.buffer_store(sums, added(sums[at], weight), [at])
            for i in range(chains):
                T.buffer_store(memory, sums[T.ramp(i * lanes, 1, lanes)], [T.ramp(i * lanes, 1, lanes)])
    function = tvm.compile(tvm.IRModule({"roof": builder.get()}), target=target.tvm)["roof"]
    sums_and_weight = tvm.runtime.tensor(np.zeros((chains + 1) * lanes, dtype))
    return lambda: function(sums_and_weight)


def limits(repeats: int = 15) -> dict[str, int]:
    """Of one core of this machine: the most of some rounds by processor time, since others may run beside."""
    from bibench_tvm.compiling.processors import resolve_target

    target = resolve_target("host")
    found = {}
    for kind in ROOFS:
        call = roof(kind, target)
        call()  # the first is slower
        seconds = []
        for _ in range(repeats):
            before = time.thread_time()
            call()
            seconds.append(time.thread_time() - before)
        found[f"{kind.removesuffix('32')}_products_per_s"] = round(
            products_a_call(kind, target) / min(seconds)
        )
    return found


if __name__ == "__main__":
    print(json.dumps(limits()))
