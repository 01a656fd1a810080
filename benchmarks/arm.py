"""`python -m benchmarks.arm`: executed instructions and modelled cycles on 64-bit Arm, without a board.

Instructions are counted under QEMU and are exact; cycles are those of LLVM's models of four cores, for the
innermost loop alone. Judge by both: a count hides the stalls of a core that works in order, and a model hides
the rest of the kernel.

What the models of cores that work in order do not know: llvm-mca has results written in the order of the
instructions, so that an `eor`, of one cycle, waits three after a `cnt` or `uadalp`, of four, of which it
needs nothing. And it has 16 bytes read in a cycle in which another instruction begins; of a Cortex-A55 the
authors of ncnn and of ONNX Runtime say that it takes two for them, and begins nothing else. That would be
32 products a cycle at most where sums go along channels, and 31 across them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks import goals, shapes
from benchmarks.emulation import emulating
from benchmarks.shapes import LAYERS, chosen
from benchmarks.tables import promised, tell
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting, stderr

if TYPE_CHECKING:
    from benchmarks.kernels import Kernel
    from bibench_tvm.tuning.inner_loop import Executed

COUNTED_ON = "rpi4b"
# LLVM's model of a core -> the target whose code it is given; of an RK3588 that is for its little cores.
MODELS = {"cortex-a53": "rpi3b+", "cortex-a55": "rk3588", "cortex-a72": "rpi4b", "neoverse-n1": "rpi5"}

NOT_MODELLED = "Of a Cortex-A55, 16 bytes are said to take 2 cycles to read, and not 1: 32 products at most."

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def arm_command(
    layers: Annotated[str, typer.Option(help="Of A, B, C and D.")] = "A,B,C,D",
    stem: Annotated[bool, typer.Option(help="Count the float stem of a ResNet too.")] = True,
    models: Annotated[bool, typer.Option(help="Model the inner loops with llvm-mca.")] = True,
    assembly: Annotated[bool, typer.Option(help="Print the inner loops.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Count the instructions of the kernels on an emulated Cortex-A72, and model their inner loops."""
    with reporting(as_json=as_json, debug=debug):
        picked = chosen("layer", layers, tuple(LAYERS))
        report: dict[str, Any] = {"counted_on": COUNTED_ON}
        report |= {"instructions_per_1000_macs": {}, "macs_per_cycle": {}}
        with emulating():
            for name in picked:
                with phase(f"layer {name}: counting"):
                    report["instructions_per_1000_macs"][name] = _count(name)
            if stem:
                with phase("the float stem: counting"):
                    report["instructions_per_1000_macs"]["stem"] = _count_stem()
            for name in picked if models else []:
                with phase(f"layer {name}: modelling its inner loop"):
                    report["macs_per_cycle"][name] = _model(name, assembly)
        tell(report, _tables(report), as_json)


def _count(name: str) -> dict[str, Any]:
    """Executed instructions per 1000 products; `layer`: floats packed, multiplied and written as floats."""
    shape = LAYERS[name]
    x = shapes.example(shape)
    alone = _executed(shapes.channels_last(shapes.binary_layer(shape)), x.permute(0, 2, 3, 1))
    inside = _executed(shapes.chain(shape), x)
    macs = next(kernel.macs for kernel, _ in alone if kernel.binary)

    def per_1000(pairs: list[tuple[Kernel, list[Executed]]], binary: bool) -> float:
        return 1000 * sum(i.count for k, executed in pairs if k.binary == binary for i in executed) / macs

    figures = {
        "bits to float": per_1000(alone, True),
        "bits to bits": per_1000([next(pair for pair in inside if pair[0].binary)], True),
        "float to bits": per_1000(alone, False),
    }
    total = figures["bits to float"] + figures["float to bits"]
    figures["popcounts"] = 1000 * sum(i.count for k, e in alone if k.binary for i in e if i.products) / macs
    return {**figures, "layer": total, **goals.INSTRUCTIONS[name].promised(total)}


def _count_stem() -> dict[str, Any]:
    import torch

    pairs = _executed(shapes.stem(), torch.zeros(1, 3, 224, 224))
    macs = sum(kernel.macs for kernel, _ in pairs)
    total = 1000 * sum(i.count for _, executed in pairs for i in executed) / macs
    return {"layer": total, **goals.STEM_INSTRUCTIONS.promised(total)}


def _executed(model: Any, example: Any, target_name: str = COUNTED_ON) -> list[tuple[Kernel, list[Executed]]]:
    """Each kernel of ours in the model, and what one call of it executes."""
    from benchmarks.emulated_kernel import executed_instructions
    from benchmarks.kernels import kernels_of
    from bibench_tvm.compiling.processors import resolve_target

    target = resolve_target(target_name)
    found = kernels_of(model, example.contiguous(), target)
    return [(kernel, executed_instructions(kernel, target)) for kernel in found]


def _model(name: str, assembly: bool) -> dict[str, Any]:
    """Products a cycle in the inner loop, bits to bits, on each core."""
    from benchmarks.emulated_kernel import executed_instructions
    from benchmarks.kernels import kernels_of
    from bibench_tvm.compiling.processors import resolve_target
    from bibench_tvm.tuning.inner_loop import cycles, disassemble, inner_loop

    shape = LAYERS[name]
    loops: dict[str, list[Executed]] = {}
    figures: dict[str, Any] = {}
    for cpu, target_name in MODELS.items():
        if target_name not in loops:
            target = resolve_target(target_name)
            found = kernels_of(shapes.chain(shape), shapes.example(shape), target)
            kernel = next(k for k in found if k.binary)
            loops[target_name] = inner_loop(executed_instructions(kernel, target))
            if assembly:
                stderr.print(disassemble(loops[target_name], cpu))
        body = loops[target_name]
        products = sum(i.products for i in body)
        share = sum(i.products * i.count for i in body) / kernel.macs
        rate = products / cycles(body, cpu)
        figures[cpu] = {
            "macs_per_cycle": rate,
            "instructions": len(body),
            "macs": products,
            "share_of_layer": share,
            **(goals.CYCLES[cpu].promised(rate) if cpu in goals.CYCLES else {}),
        }
    return figures


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    table = Table(title=f"Executed instructions per 1000 products, {report['counted_on']}")
    kinds = ("bits to float", "bits to bits", "float to bits", "popcounts")
    for column in ("layer", *kinds, "whole layer", "must", "aim", ""):
        table.add_column(column, justify="right")
    for name, figures in report["instructions_per_1000_macs"].items():
        cells = [f"{figures[kind]:.2f}" if kind in figures else "" for kind in kinds]
        table.add_row(name, *cells, f"{figures['layer']:.2f}", *promised(figures))
    yield table
    if not report["macs_per_cycle"]:
        return
    table = Table(title="Products a cycle in the inner loop, by llvm-mca", caption=NOT_MODELLED)
    what = ("products a cycle", "instructions", "products", "of the layer")
    for column in ("layer", "core", *what, "must", "aim", ""):
        table.add_column(column, justify="right")
    for name, cores in report["macs_per_cycle"].items():
        for cpu, figures in cores.items():
            row = f"{figures['macs_per_cycle']:.1f}", str(figures["instructions"]), str(figures["macs"])
            table.add_row(name, cpu, *row, f"{figures['share_of_layer']:.0%}", *promised(figures))
    yield table


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.arm")
