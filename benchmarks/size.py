"""`python -m benchmarks.size`: what a network's library weighs, by kind, beside bits and floats."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks.tables import tell
from bibench_tvm.cli.console import AsJson, Debug, reporting

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported
    from relay_passes import Lowered

BITS, FLOATS, SCALES = "packed bits", "float weights", "scales and shifts"
TRANSFORMED, TABLES, CODE, REST = "transformed weights", "border tables", "code", "all else"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def size_command(
    arch: Annotated[str, typer.Option(help="The network.")] = "resnet18",
    algorithm: Annotated[str, typer.Option(help="The binarization algorithm.")] = "bireal",
    target: Annotated[str, typer.Option(help="What it is compiled for.")] = "arm_cpu",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compile a network and weigh it."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.importer.source import named

        network = named(None, None, arch, algorithm, None, [], False)
        found = weigh(network.load(float32=False), target)
        table = Table(title=f"{arch}, {algorithm}, for {target}")
        table.add_column("")
        for column in ("bytes", "of the ideal"):
            table.add_column(column, justify="right")
        for kind, size in found["bytes"].items():
            table.add_row(kind, f"{size:,}", f"{size / found['ideal']:.2%}")
        report = {"arch": arch, "algorithm": algorithm, "target": target, **found}
        tell(report, [table], as_json)


def weigh(imported: Imported, target_name: str) -> dict[str, Any]:
    """bytes: of the library by kind, adding up to all of it; ideal: packed bits, float weights, and the
    scales and shifts that other parameters are folded into. data, whole: constants, and the library, over
    the ideal, without what transformed weights (Winograd's) have more than the source's."""
    from bibench_tvm.compiling.build import build, chooser
    from bibench_tvm.compiling.processors import resolve_target
    from bibench_tvm.compiling.standalone.elf import Elf

    target = resolve_target(target_name)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "model.so")
        lowered, _ = build(imported, target, library, chooser(target, None))
        content = library.read_bytes()
    found = _constants(lowered)
    floats = sum(layer.weight_bytes for layer in lowered.layers if not layer.binarized)
    bytes_ = {BITS: found[BITS], FLOATS: min(floats, found[FLOATS]), SCALES: found[SCALES]}
    bytes_[TABLES] = found[TABLES]
    bytes_[CODE] = Elf(content).executable_bytes
    bytes_[TRANSFORMED] = max(0, found[FLOATS] - floats)
    bytes_[REST] = len(content) - sum(bytes_.values())
    ideal = bytes_[BITS] + bytes_[FLOATS] + bytes_[SCALES]
    data = ideal + bytes_[TABLES]
    whole = len(content) - bytes_[TRANSFORMED]
    return {"bytes": bytes_, "ideal": ideal, "data": data / ideal, "whole": whole / ideal}


def _constants(lowered: Lowered) -> Counter[str]:
    """Bytes by kind; a constant that several kernels read is there once."""
    from relay_passes.ir.rewrite import bindings, constant_value, is_call, is_constant

    found: Counter[str] = Counter()
    seen: set[tuple[str, bytes]] = set()
    for binding in bindings(lowered.module):
        if not is_call(binding.value, "relax.call_tir"):
            continue
        name, arguments = binding.value.args[:2]
        kernel = lowered.module[name]
        for parameter, argument in zip(kernel.params, arguments.fields, strict=False):
            if not is_constant(argument):
                continue
            array = constant_value(argument)
            key = (f"{array.dtype}{array.shape}", array.tobytes())
            if key not in seen:
                seen.add(key)
                found[_kind(str(parameter.name), str(array.dtype))] += array.nbytes
    return found


def _kind(parameter: str, dtype: str) -> str:
    if parameter == "weights":
        return FLOATS if dtype.startswith("float") else BITS
    return TABLES if parameter in ("table", "row_class", "column_class") else SCALES


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.size")
