"""`python -m benchmarks.float16`: float layers in float32 and in float16, in instructions of an emulated
Cortex-A76 per 1000 products, and how far each is from float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks.emulation import emulating
from benchmarks.tables import tell
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting
from schedules.geometry import Convolution

if TYPE_CHECKING:
    from tvm import tirx

    from bibench_tvm.compiling.processors import CompileTarget

TARGET = "rpi5"
LAYERS = {  # a layer, and whether it reads an image [N, C, H, W]
    "7x7 / 2, 3 to 64, 224x224": (Convolution(1, 224, 224, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3)), True),
    "3x3, 3 to 64, 32x32": (Convolution(1, 32, 32, 3, 64, (3, 3), padding=(1, 1, 1, 1)), True),
    "3x3, 64 to 64, 28x28": (Convolution(1, 28, 28, 64, 64, (3, 3), padding=(1, 1, 1, 1)), False),
    "3x3 / 2, 64 to 128, 28x28": (
        Convolution(1, 28, 28, 64, 128, (3, 3), (2, 2), padding=(1, 1, 1, 1)),
        False,
    ),
    "1x1, 128 to 128, 28x28": (Convolution(1, 28, 28, 128, 128), False),
    "dense, 512 to 1000": (Convolution(1, 1, 1, 512, 1000), False),
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def float16_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """Count the instructions of each layer by each way to compute it."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.compiling.processors import resolve_target

        target, report = resolve_target(TARGET), {}
        with emulating():
            for name, (conv, planar) in LAYERS.items():
                with phase(name):
                    report[name] = _ways(conv, planar, target)
        table = Table(title="Instructions per 1000 products, emulated Cortex-A76; largest relative error")
        ways = ("float32", "float32 by Winograd", "float16")
        for column in ("layer", *ways):
            table.add_column(column, justify="right")
        for name, found in report.items():
            cells = (f"{found[w]['count']:.0f}, {found[w]['error']:.0e}" if w in found else "" for w in ways)
            table.add_row(name, *cells)
        tell(report, [table], as_json)


def _ways(conv: Convolution, planar: bool, target: CompileTarget) -> dict[str, dict[str, float]]:
    from schedules.kernels import winograd, winograd_inside
    from schedules.kernels.convolution import convolution_reference, float_convolution
    from schedules.parts.epilogue import plain
    from schedules.parts.weights import lay_out
    from schedules.records.kernel_task import outputs_of
    from schedules.records.kinds.winograd import WinogradTask

    kernels, epilogue = target.kernels, plain(conv.out_shape, "float32")
    assert kernels.half_tile is not None
    chance = np.random.default_rng(0)
    image = chance.standard_normal((conv.batch, conv.height, conv.width, conv.channels), np.float32)
    weights = chance.standard_normal((conv.out_channels, *conv.kernel, conv.channels), np.float32)
    exact = convolution_reference(image, weights, conv)
    read, taps = (a.transpose(0, 3, 1, 2) if planar else a for a in (image, weights))

    def counted(function: tirx.PrimFunc, stored: np.ndarray) -> dict[str, float]:
        return _counted(function, (np.ascontiguousarray(read), stored), exact, conv, target)

    found = {}
    for way, half, tile in (
        ("float32", False, kernels.float_tile(conv)),
        ("float16", True, kernels.half_tile(conv)),
    ):
        kernel = float_convolution(conv, read.shape, tile, kernels, epilogue, planar=planar, half=half)
        stored = lay_out(taps.astype(np.float16 if half else np.float32), 1, tile)
        found[way] = counted(kernel, stored)
    if (winograd if planar else winograd_inside).is_faster(conv, kernels):
        task = WinogradTask(conv=conv, planar=planar, outputs=outputs_of(epilogue))
        by_winograd = task.default(kernels)
        kernel = task.kernel(by_winograd, kernels, epilogue)
        found["float32 by Winograd"] = counted(kernel, task.laid_out(weights, by_winograd))
    return found


def _counted(
    function: tirx.PrimFunc,
    arguments: tuple[np.ndarray, ...],
    exact: np.ndarray,
    conv: Convolution,
    target: CompileTarget,
) -> dict[str, float]:
    """count: instructions per 1000 products; error: the largest, relative to the largest sum."""
    from benchmarks.emulated_kernel import executed_instructions
    from benchmarks.kernels import Kernel

    errors: list[float] = []

    class Seen(Kernel):
        def check(self, after: Any) -> None:
            errors.append(float(np.abs(after[-1] - exact).max() / np.abs(exact).max()))

    everything = (*arguments, np.zeros(conv.out_shape, np.float32))
    kernel = Seen("float_layer", "float layer", False, conv.macs, function, everything, 1, None)
    instructions = executed_instructions(kernel, target)
    return {"count": 1000 * sum(i.count for i in instructions) / conv.macs, "error": errors[-1]}


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.float16")
