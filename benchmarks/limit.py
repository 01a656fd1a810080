"""`python -m benchmarks.limit`: how many products a second one core can do when nothing leaves its registers.

Chains of `sum = sum + popcount(sum ^ weight)`, as many as hide the latency, are what every kernel of ours is
made of, without a load or a store; `sum = sum * weight + sum` for float layers. No layer can be faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks.tables import show
from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting

if TYPE_CHECKING:
    from bibench_tvm.compiling.processors import CompileTarget

UNROLLED = 8
STEPS = 1 << 12
ROOFS = {"binary": "xor, popcount, add", "float32": "multiply and add"}


def vectors(target: CompileTarget) -> tuple[int, int]:
    """Bytes of a vector, and as many chains as hide the latency of three operations and leave some registers
    free."""
    return target.kernels.vector_bits // 8, 20 if target.kernels.registers >= 32 else 8


def products_a_call(kind: str, target: CompileTarget) -> int:
    size, chains = vectors(target)
    return STEPS * UNROLLED * chains * (8 * size if kind == "binary" else size // 4)


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
                        old = sums[at]
                        new = old + tirx.popcount(old ^ weight) if kind == "binary" else old * weight + old
                        T.buffer_store(sums, new, [at])
            for i in range(chains):
                T.buffer_store(memory, sums[T.ramp(i * lanes, 1, lanes)], [T.ramp(i * lanes, 1, lanes)])
    function = tvm.compile(tvm.IRModule({"roof": builder.get()}), target=target.tvm)["roof"]
    sums_and_weight = tvm.runtime.tensor(np.zeros((chains + 1) * lanes, dtype))
    return lambda: function(sums_and_weight)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def limit_command(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median is what counts.")] = 15,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure what one core of this machine can do in its registers, in G products a second."""
    with reporting(as_json=as_json, debug=debug):
        from benchmarks.timing import Timing, burst_of
        from bibench_tvm.compiling.processors import resolve_target
        from bibench_tvm.measuring.turns import calls_within, rounds, spread

        target = resolve_target("host")
        bursts = {kind: burst_of(roof(kind, target)) for kind in ROOFS}
        turns = {kind: partial(burst, calls_within(burst, 0.02)) for kind, burst in bursts.items()}
        rates = {
            kind: spread([products_a_call(kind, target) / s / 1e9 for s in Timing.of(costs).cpu])
            for kind, costs in rounds(turns, repeats).items()
        }
        table = Table(title=f"One core ({target.cpu}, kernels of {target.kernels.name}), G products a second")
        for column in ("in registers", "median", "quartiles"):
            table.add_column(column)
        for kind, rate in rates.items():
            between = f"{rate['low']:,.0f} to {rate['high']:,.0f}"
            table.add_row(f"{kind}: {ROOFS[kind]}", f"{rate['median']:,.0f}", between)
        show(table)
        if as_json:
            print_json({"cpu": target.cpu, "kernels": target.kernels.name, "gmacs_per_s": rates})


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.limit")
