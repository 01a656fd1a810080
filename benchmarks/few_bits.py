"""`python -m benchmarks.few_bits`: a layer of one bit, of two bits as planes, and of int8, on 64-bit Arm.

Executed instructions under QEMU, exact, for each 1000 products of the layer; `sums` is what multiplies, with
its write-back, `layer` all from floats to floats, channels last. Judge the factors by both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks import shapes
from benchmarks.emulation import emulating
from benchmarks.shapes import LAYERS, Shape, chosen
from benchmarks.tables import tell
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting

if TYPE_CHECKING:
    from torch import Tensor, nn

INT8 = "int8"
RANGE = 4.0  # of the activations in int8, which changes no instruction
# What is counted -> bits of the activations and of the weights; int8 has its own kernel.
KINDS = {"1 bit": (1, 1), "2-bit activations": (2, 1), "2 bits": (2, 2), INT8: (8, 8)}
TARGETS = "rpi4b,rpi5"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def few_bits_command(
    layers: Annotated[str, typer.Option(help="Of A, B, C and D.")] = "B,C",
    targets: Annotated[str, typer.Option(help="Boards, whose processor is emulated.")] = "rpi4b",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Count the instructions of layers of one bit, two bits and int8 on an emulated processor."""
    with reporting(as_json=as_json, debug=debug):
        report: dict[str, Any] = {}
        with emulating():
            for target in chosen("board", targets, tuple(TARGETS.split(","))):
                for name in chosen("layer", layers, tuple(LAYERS)):
                    for kind in KINDS:
                        with phase(f"{target}, layer {name}, {kind}: counting"):
                            counted = _count(LAYERS[name], kind, target)
                        report.setdefault(target, {}).setdefault(name, {})[kind] = counted
        tell(report, _tables(report), as_json)


def layer_of(shape: Shape, kind: str) -> nn.Module:
    """Floats in and floats out, channels last; the same weights each time."""
    from torch import nn

    activations, weights = KINDS[kind]

    class Quantized(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return bits(x) if activations == 1 else quantizer(activations)(x)

    layer: Any = shapes.float_layer(shape)
    if kind == INT8:
        return shapes.channels_last(layer)
    w = layer.weight.data
    layer.weight.data = bits(w) if weights == 1 else 2 * quantizer(weights)(w / w.abs().max() + 0.5) - 1
    return shapes.channels_last(nn.Sequential(Quantized(), layer))


def bits(x: Tensor) -> Tensor:
    import torch

    return torch.where(x >= 0, 1.0, -1.0)


def quantizer(width: int) -> Callable[[Tensor], Tensor]:
    """DoReFa's, to 2 ** width values from 0 to 1."""
    import torch

    most = 2**width - 1
    return lambda x: torch.round(torch.clamp(x, 0, 1) * most) / most


def _count(shape: Shape, kind: str, target_name: str) -> dict[str, float]:
    """Executed instructions for each 1000 products of the layer, however many planes of bits it has."""
    from benchmarks.emulated_kernel import executed_instructions
    from benchmarks.kernels import kernels_of
    from bibench_tvm.compiling.processors import resolve_target

    target = resolve_target(target_name)
    x = shapes.example(shape).permute(0, 2, 3, 1).contiguous()
    kernels = kernels_of(layer_of(shape, kind), x, target, RANGE if kind == INT8 else None)
    macs = max(kernel.macs for kernel in kernels)
    found = {True: 0.0, False: 0.0}
    for kernel in kernels:
        executed = executed_instructions(kernel, target)
        found[kernel.binary] += 1000 * sum(i.count for i in executed) / macs
    return {"kernels": len(kernels), "sums": found[True], "layer": found[True] + found[False]}


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    for target, layers in report.items():
        table = Table(title=f"Executed instructions per 1000 products, {target}")
        for column in ("layer", "in", "kernels", "sums", "whole layer", "int8's sums", "int8's layer"):
            table.add_column(column, justify="right")
        for name, kinds in layers.items():
            for kind, figures in kinds.items():
                times = [f"{kinds[INT8][what] / figures[what]:.1f} times" for what in ("sums", "layer")]
                counts = [f"{figures[what]:.1f}" for what in ("sums", "layer")]
                table.add_row(name, kind, str(figures["kernels"]), *counts, *times)
        yield table


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.few_bits")
