"""`python -m benchmarks.tune_shipped`: make the records that ship, schedules/records/*.json, anew.

Each processor has a folder of trials, in which its networks are tuned one after another: kernels that they
share are measured once, and an interrupted run goes on. For this machine the costs are times, so nothing else
should run; for the Arm cores they are instructions counted under QEMU times llvm-mca's cycles, which no load
changes.

With `--again` nothing is searched: the records are measured against the defaults anew, of which either may
have changed, and those that are not better any more are dropped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.shapes import LAYERS, binary_layer, chosen, example
from bibench_tvm.cli.console import Debug, reporting, stderr
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.compiling.processors import CompileTarget, resolve_target
from schedules.records.records import FILE, SHIPPED, read

TARGETS = {
    "host": "host",
    "cortex-a53": "rpi3b+",
    "cortex-a55": "rk3588",  # its little cores, for which it is compiled
    "cortex-a72": "rpi4b",
    "cortex-a76": "rpi5",
    "cortex-x2": "dimensity9000",
}
# An algorithm of each kind of epilogue: between them they write bits, floats, and both.
NETWORKS = {
    f"{arch} {algorithm}": ["--arch", arch, "--algorithm", algorithm]
    for arch in ("resnet18", "resnet34", "vgg_small", "resnet20")
    for algorithm in ("bnn", "reactnet")
}
ALONE = [f"layer {name}" for name in LAYERS]  # floats plane by plane come in and go out

_AGAIN = " Measured again on later kernels:"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tune_shipped(
    processors: Annotated[str, typer.Option(help="Of host and Arm cores.")] = ",".join(TARGETS),
    networks: Annotated[str, typer.Option(help="Which to tune.")] = ",".join([*NETWORKS, *ALONE]),
    trials: Annotated[int, typer.Option(min=1, max=1_000_000, help="For each network and processor.")] = 200,
    out: Annotated[Path, typer.Option(help="The folder for trials.")] = Path("build/tuning"),
    again: Annotated[bool, typer.Option(help="Only measure the records anew.")] = False,
    debug: Debug = False,
) -> None:
    """Tune each network on each processor, and put the records where the compiler finds them."""
    with reporting(as_json=False, debug=debug):
        picked = chosen("network", networks, (*NETWORKS, *ALONE))
        for processor in chosen("processor", processors, tuple(TARGETS)):
            name, folder = TARGETS[processor], out / processor
            if again:
                _measure_again(name, picked, out)
                continue
            for network in picked:
                model = NETWORKS.get(network) or _exported(network, out)
                line = ["tune", *model, "--target", name, "--out", folder, "--trials", trials]
                stderr.print(" ".join(map(str, line)), soft_wrap=True)
                command = [sys.executable, "-m", "bibench_tvm.tune", *map(str, line[1:])]
                if subprocess.run(command).returncode:
                    raise BibenchError(f"Tuning {network} for {processor} failed; the same command goes on.")
            read(folder / FILE)  # whole, and one that the compiler will take
            shutil.copyfile(folder / FILE, _shipped(resolve_target(name)))


def _measure_again(name: str, networks: list[str], out: Path) -> None:
    """The shipped records of a processor that are of one of these networks."""
    from bibench_tvm.importer.source import named
    from bibench_tvm.tuning.boards import boards_of
    from bibench_tvm.tuning.builder import builder
    from bibench_tvm.tuning.search import Search, Subject, subjects_of
    from bibench_tvm.tuning.trials import open_trials
    from relay_passes import lower
    from rpc import session

    target = resolve_target(name)
    path = _shipped(target)
    held = read(path)
    subjects: dict[str, Subject] = {}
    for network in networks:
        arch, _, algorithm = network.partition(" ")
        file = None if network in NETWORKS else _exported(network, out)[0]
        imported = named(file, None, None if file else arch, None if file else algorithm, None, []).load()
        tunable = lower(imported.module, imported.layer_names, target.kernels).tunable
        for subject in subjects_of(tunable, target):
            key = subject.task.key
            record = held.best.get(key)
            if record:
                subjects[key] = replace(subject, pool=[subject.default_choice, record.tile])
    emulate = None if target.is_host else target.emulated_cpu
    cpu = target.scheduled_for if held.unit == "model cycles" else ""
    with (
        tempfile.TemporaryDirectory() as folder,
        session.local_board(emulate=emulate) as place,
        boards_of(*place) as boards,
        builder(target.tvm, cpu) as compiler,
        open_trials(Path(folder), held.processor, target.kernels, held.unit, 0) as kept,
    ):
        every = list(subjects.values())
        search = Search(every, target, kept, boards, compiler, seed=0, report=lambda progress: None)
        search.run(2 * len(every))
        better = search.compare()
    best = {key: better.get(key, record) for key, record in held.best.items()}
    best = {key: record for key, record in best.items() if key in better or key not in subjects}
    how = held.obtained.split(_AGAIN)[0] + f"{_AGAIN} {len(every)}, of which {len(better)} were still better."
    path.write_text(replace(held, best=best, obtained=how).to_json())
    stderr.print(f"{path.name}: of {len(every)}, {len(better)} are still better.")


def _shipped(target: CompileTarget) -> Path:
    return SHIPPED / f"{target.processor.kernels}-{target.processor.cpu}.json"


def _exported(layer: str, folder: Path) -> list[Path]:
    import torch

    shape = LAYERS[layer.removeprefix("layer ")]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{layer.replace(' ', '_')}.pt2"
    torch.export.save(torch.export.export(binary_layer(shape), (example(shape),)), path)
    return [path]


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.tune_shipped")
