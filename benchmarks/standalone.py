"""`python -m benchmarks.standalone`: libraries for C beside the artifacts that they are of.

Bytes, and the latency of both in one process on one thread, in turns. On an emulated Cortex-M4, the executed
instructions of each binary product, which are exact.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks import shapes
from benchmarks.shapes import Shape, chosen
from benchmarks.tables import tell
from benchmarks.timing import burst_of
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.artifact.folder import STANDALONE
from bibench_tvm.artifact.manifest import MODEL, Standalone
from bibench_tvm.cli.console import AsJson, Debug, phase, reporting
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.measuring.turns import Burst, calls_within, ratios, rounds, spread

if TYPE_CHECKING:
    from rpc.emulation.c_network import CNetwork

BUNDLED = "bundled"
NETWORKS = (BUNDLED, *shapes.NETWORKS)
BINARY = (Shape(64, 64, 8, 8, 3), Shape(32, 32, 16, 16, 3), Shape(128, 128, 8, 8, 1), Shape(512, 512, rows=1))
_BURST_S = 0.05

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def standalone_command(
    networks: Annotated[str, typer.Option(help="Of bundled, resnet18, resnet34 and vgg_small.")] = (
        "bundled,resnet18"
    ),
    count: Annotated[
        int, typer.Option("--rounds", min=3, max=10_000, help="How often both take their turn.")
    ] = 41,
    microcontroller: Annotated[str, typer.Option(help="cortex-m4 and its kind; empty for none.")] = (
        "cortex-m4"
    ),
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare them in size and in time, and count instructions on a microcontroller."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.artifact.threads import use_threads

        use_threads(1)
        report: dict[str, Any] = {"networks": {}, "microcontroller": microcontroller, "instructions": {}}
        for name in chosen("network", networks, NETWORKS):
            with phase(f"{name}: size and time"):
                report["networks"][name] = _beside_the_artifact(name, count)
        for title, made in _on_microcontrollers().items() if microcontroller else ():
            with phase(f"{title}: instructions on a {microcontroller}"):
                report["instructions"][title] = _executed(made, microcontroller)
        tell(report, _tables(report), as_json)


def _compiled(made: Any, target: str, folder: str) -> Artifact:
    from bibench_tvm import compile_model

    return compile_model(*made, target=target, out=folder, standalone=True)


def _model(name: str) -> Any:
    from bibench_tvm.importer.bundled import NETWORK

    return (NETWORK,) if name == BUNDLED else shapes.network(name, "bnn")


def _record(artifact: Artifact) -> Standalone:
    assert isinstance(artifact.record.standalone, Standalone)
    return artifact.record.standalone


def _beside_the_artifact(name: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        artifact = _compiled(_model(name), "host", folder)
        made = _record(artifact)
        places = [Path(folder, STANDALONE, f"lib{made.name}{end}") for end in (".a", ".so")]
        sizes = {place.name: place.stat().st_size for place in (Path(folder, MODEL), *places)}
        bursts = _bursts(artifact, places[1])
        calls = {title: calls_within(burst, _BURST_S) for title, burst in bursts.items()}
        turns = {title: _turn(burst, calls[title]) for title, burst in bursts.items()}
        costs = {title: [c[-1] for c in found] for title, found in rounds(turns, count).items()}
    return {
        "bytes": sizes,
        "code_and_constants": made.code_and_constants,
        "workspace_bytes": made.workspace_bytes,
        "stack_bytes": made.stack_bytes,
        "microseconds": {title: spread(found, 1e6) for title, found in costs.items()},
        "ratio": ratios(costs["artifact"], costs["library"]),
    }


def _turn(burst: Burst, calls: int) -> Callable[[], tuple[float, ...]]:
    return lambda: burst(calls)


def _bursts(artifact: Artifact, library: Path) -> dict[str, Burst]:
    """The artifact by TVM's virtual machine, and the library. Raises BibenchError where they differ."""
    import tvm

    from bibench_tvm.artifact.artifact import flatten, load_vm
    from bibench_tvm.measuring.measure import sample_inputs

    inputs = sample_inputs(artifact.record, None)
    machine = load_vm(artifact.folder / MODEL)
    machine.set_input("main", *(tvm.runtime.tensor(array) for array in inputs))
    machine.invoke_stateful("main")
    expected = [array.copy() for array in flatten(machine.get_outputs("main"))]
    made = _record(artifact)
    run: Any = getattr(ctypes.CDLL(str(library)), f"{made.name}_run")
    memory = np.zeros(made.workspace_bytes + made.alignment, np.uint8)
    outputs = [np.zeros_like(array) for array in expected]
    places = [array.ctypes.data for array in (*inputs, *outputs)]
    places.append(memory.ctypes.data + -memory.ctypes.data % made.alignment)
    pointers = [ctypes.c_void_p(place) for place in places]
    if run(*pointers) or [a.tobytes() for a in outputs] != [b.tobytes() for b in expected]:
        raise BibenchError(f"The library of {artifact.record.model} computes something else.")

    def call(kept: Any = (inputs, outputs, memory)) -> None:
        run(*pointers)

    return {"artifact": burst_of(lambda: machine.invoke_stateful("main")), "library": burst_of(call)}


def _on_microcontrollers() -> dict[str, Any]:
    """What is compiled, by title: a layer from floats to floats, which is all binary, and whole networks."""
    layers = {shape.title: (shapes.binary_layer(shape), shapes.example(shape)) for shape in BINARY}
    return {**layers, "the bundled ResNet-20, whole": _model(BUNDLED)}


def _executed(made: Any, cpu: str) -> dict[str, Any]:
    from bibench_tvm.measuring.measure import sample_inputs
    from rpc.emulation import cortex_m

    with tempfile.TemporaryDirectory() as folder:
        artifact = _compiled(made, cpu, folder)
        sample = sample_inputs(artifact.record, None)
        found = cortex_m.run_network(_c_network(artifact), [sample], cpu=cpu, timeout_s=600, count=True)
        layers = artifact.record.layers
        return {
            "instructions": found.instructions,
            "binary_products": sum(layer.macs for layer in layers if layer.binarized),
            "other_products": sum(layer.macs for layer in layers if not layer.binarized),
            "flash_bytes": _record(artifact).code_and_constants,
        }


def _c_network(artifact: Artifact) -> CNetwork:
    from rpc.emulation.c_network import CNetwork

    name, folder = _record(artifact).name, artifact.folder / STANDALONE
    outputs = [np.zeros(tensor.shape, tensor.dtype) for tensor in artifact.record.outputs]
    return CNetwork(folder / f"lib{name}.a", folder / f"{name}.h", name, outputs)


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    table = Table(title="A library for C and the artifact; KB, and microseconds on one thread, in turns")
    for column in f"network,{MODEL},lib.a,lib.so,loaded,workspace,artifact,library,ratio".split(","):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, found in report["networks"].items():
        sizes = [*found["bytes"].values(), found["code_and_constants"], found["workspace_bytes"]]
        times = [found["microseconds"][title]["median"] for title in ("artifact", "library")]
        ratio = found["ratio"]
        table.add_row(
            name,
            *(f"{size / 1000:,.1f}" for size in sizes),
            *(f"{time:,.0f}" for time in times),
            f"{ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})",
        )
    yield table
    if not report["instructions"]:
        return
    table = Table(
        title=f"Executed instructions on an emulated {report['microcontroller']}, from floats to floats"
    )
    for column in ("", "flash, KB", "binary products", "others", "instructions", "a binary product"):
        table.add_column(column, justify="right" if column else "left")
    for title, found in report["instructions"].items():
        binary = found["binary_products"]
        numbers = [binary, found["other_products"], found["instructions"]]
        each = f"{found['instructions'] / binary:.3f}"
        table.add_row(title, f"{found['flash_bytes'] / 1000:.1f}", *(f"{n:,}" for n in numbers), each)
    yield table


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.standalone")
