"""`python -m benchmarks.tune_shipped`: make the records that ship, schedules/records/*.json, anew.

Each processor has a folder of trials, in which its networks are tuned one after another: kernels that they
share are measured once, and an interrupted run goes on. For this machine the costs are times, so nothing else
should run; for the Arm cores they are instructions counted under QEMU times llvm-mca's cycles, which no load
changes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.shapes import LAYERS, binary_layer, chosen, example
from bibench_tvm.cli.console import Debug, reporting, stderr
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.compiling.processors import resolve_target
from schedules.records.records import FILE, SHIPPED, read

TARGETS = {"host": "host", "cortex-a53": "rpi3b+", "cortex-a72": "rpi4b", "cortex-a76": "rpi5"}
# An algorithm of each kind of epilogue: between them they write bits, floats, and both.
NETWORKS = {
    f"{arch} {algorithm}": ["--arch", arch, "--algorithm", algorithm]
    for arch in ("resnet18", "resnet34", "vgg_small", "resnet20")
    for algorithm in ("bnn", "reactnet")
}
ALONE = [f"layer {name}" for name in LAYERS]  # floats plane by plane come in and go out

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tune_shipped(
    processors: Annotated[str, typer.Option(help="Of host and Arm cores.")] = ",".join(TARGETS),
    networks: Annotated[str, typer.Option(help="Which to tune.")] = ",".join([*NETWORKS, *ALONE]),
    trials: Annotated[int, typer.Option(help="For each network and processor.")] = 200,
    out: Annotated[Path, typer.Option(help="The folder for trials.")] = Path("build/tuning"),
    debug: Debug = False,
) -> None:
    """Tune each network on each processor, and put the records where the compiler finds them."""
    with reporting(as_json=False, debug=debug):
        picked = chosen("network", networks, (*NETWORKS, *ALONE))
        for processor in chosen("processor", processors, tuple(TARGETS)):
            name, folder = TARGETS[processor], out / processor
            for network in picked:
                model = NETWORKS.get(network) or _exported(network, out)
                line = ["tune", *model, "--target", name, "--out", folder, "--trials", trials]
                stderr.print(" ".join(map(str, line)), soft_wrap=True)
                command = [sys.executable, "-m", "bibench_tvm.tune", *map(str, line[1:])]
                if subprocess.run(command).returncode:
                    raise BibenchError(f"Tuning {network} for {processor} failed; the same command goes on.")
            target = resolve_target(name)
            read(folder / FILE)  # whole, and one that the compiler will take
            shutil.copyfile(folder / FILE, SHIPPED / f"{target.kernels.name}-{target.cpu}.json")


def _exported(layer: str, folder: Path) -> list[Path]:
    import torch

    shape = LAYERS[layer.removeprefix("layer ")]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{layer.replace(' ', '_')}.pt2"
    torch.export.save(torch.export.export(binary_layer(shape), (example(shape),)), path)
    return [path]


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.tune_shipped")
