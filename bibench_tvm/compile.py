"""`python -m bibench_tvm.compile [MODEL] --target NAME`: a network in, an artifact out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import UNSET
from rich.console import Console

from bibench_tvm.artifact.manifest import FILE, MODEL, FloatArithmetic, Manifest, Sizes
from bibench_tvm.cli.console import AsJson, Debug, print_json, reporting, results, run_command, stderr
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.cli.overwriting import refuse_overwriting
from bibench_tvm.importer.own_algorithm import Mine, own_algorithm

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Model = Annotated[
    Path | None, typer.Argument(help="A .pt2, a .onnx or a checkpoint. Left out: the bundled network.")
]
Target = Annotated[
    str,
    typer.Option(help="arm_cpu, host, armv7, a device such as rpi4b, cortex-m4, or a TVM target tag."),
]
Arch = Annotated[
    str | None, typer.Option(help="Compile this network with fresh weights, or what a state dict is of.")
]
Algorithm = Annotated[str | None, typer.Option(help="The binarization algorithm of --arch.")]
Variant = Annotated[str | None, typer.Option(help="The formulas of --algorithm: paper or released.")]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Of --arch and --algorithm: the network of the zoo, docs/zoo.md.")
]
Checkpoint = Annotated[Path | None, typer.Option(help="The same as MODEL.")]
InputShape = Annotated[list[str] | None, typer.Option(help="[NAME:]1x3x32x32 for an input; may be repeated.")]
Tuned = Annotated[
    Path | None, typer.Option(help="A folder that tune wrote. Left out: the records that ship, if any.")
]
Out = Annotated[Path, typer.Option(help="The folder for the artifact.")]
Verify = Annotated[int, typer.Option(max=100_000, help="Compare with the source network on so many inputs.")]
FloatLayers = Annotated[
    str, typer.Option(help="How to compute the layers that stay float: float32, int8 or fp16.")
]
Float32 = Annotated[
    bool, typer.Option("--float32", help="Compute a network in float64 in float32; take bfloat16 as float32.")
]
Samples = Annotated[
    Path | None,
    typer.Option(
        help="Inputs to calibrate int8 and to verify on: a .npy file [N, ...], or a .npz with one by name."
    ),
]
Name = Annotated[
    str | None, typer.Option(help="What the manifest calls the model, and C functions begin with.")
]
Standalone = Annotated[
    bool, typer.Option("--standalone", help="Write a library for C too, which needs neither TVM nor Python.")
]
DumpIr = Annotated[Path | None, typer.Option(help="A folder for the module after each phase, as text.")]
Labels = Annotated[Path | None, typer.Option(help="A .npy file [N] of the classes of --samples.")]


@app.command()
def compile_command(
    target: Target,
    model: Model = None,
    arch: Arch = None,
    algorithm: Algorithm = None,
    variant: Variant = None,
    mine: Mine = None,
    pretrained: Pretrained = False,
    checkpoint: Checkpoint = None,
    input_shape: InputShape = None,
    tuned: Tuned = None,
    out: Out = Path("build"),
    verify: Verify = 0,
    float_layers: FloatLayers = "float32",
    float32: Float32 = False,
    samples: Samples = None,
    labels: Labels = None,
    name: Name = None,
    dump_ir: DumpIr = None,
    standalone: Standalone = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compile a binarized network for an Arm processor, or for this machine."""
    with reporting(as_json=as_json, debug=debug), own_algorithm(mine):
        from bibench_tvm.cli.arrays import read_array, read_samples
        from bibench_tvm.compiling.build import chooser
        from bibench_tvm.compiling.compiler import CompileOptions, compile_network
        from bibench_tvm.compiling.processors import resolve_target
        from bibench_tvm.compiling.standalone.library import DEFAULT_NAME
        from bibench_tvm.compiling.two_stages import compile_stages, two_stages
        from bibench_tvm.importer.source import named

        chooser(resolve_target(target), tuned)  # before the network is built
        if verify < 0:
            raise UsageError(f"--verify {verify} makes no sense: it is the number of inputs to compare on.")
        network = named(model, checkpoint, arch, algorithm, variant, input_shape or [], pretrained)
        network = replace(network, name=name or network.name)
        refuse_overwriting([out / FILE, out / MODEL], filter(None, (network.file, samples, labels)))
        given: Any = None
        classes = None
        if samples is not None:
            if not verify and float_layers != "int8":
                raise UsageError(
                    "--samples are what --verify and --float-layers int8 work on; give one of these."
                )
            given, classes = read_samples(samples), read_array(labels) if labels else None
        elif labels is not None:
            raise UsageError("--labels are the classes of --samples; give both.")
        elif network.images:
            given, classes = network.images
            if verify > len(given):
                raise UsageError(
                    f"The bundled network comes with {len(given)} images; --verify {verify} asks for more."
                )
        options = CompileOptions(
            target=target,
            out=out,
            tuned=tuned,
            verify=verify,
            samples=given,
            labels=classes,
            float_layers=float_layers,
            float32=float32,
            dump_ir=dump_ir,
            standalone=(name or DEFAULT_NAME) if standalone else None,
        )
        if detector := two_stages(network):
            compiled = compile_stages(detector, options, network.file)
            stages = {"first": compiled.first, "second": compiled.second}
        else:
            stages = {"": compile_network(network, options)}
        for artifact in stages.values():
            _print_summary(results(as_json), artifact.record)
        stderr.print(f"Written to {out}", soft_wrap=True)
        if as_json:
            found = {name: {**stage.manifest, "path": str(stage.folder)} for name, stage in stages.items()}
            print_json({**found, "path": str(out)} if detector else found[""])
        if any(artifact.record.verification.passed is False for artifact in stages.values()):
            raise typer.Exit(1)


def _print_summary(found: Console, manifest: Manifest) -> None:
    layers, record, size = manifest.layers, manifest.verification, manifest.size_bytes
    _print_layers(found, manifest)
    remarks: dict[str, list[str]] = {}
    for layer in layers:
        reason = f"In {'float' if layer.dtype == 'float32' else layer.dtype}: {layer.reason}."
        for remark in filter(None, (layer.reason and reason, layer.notes)):
            remarks.setdefault(remark, []).append(layer.name)
    for remark, names in remarks.items():
        found.print(f"{', '.join(names)}: {remark}")
    for note in manifest.notes:
        found.print(note)
    _print_int8(found, manifest.float_layers)
    binary = sum(layer.binarized for layer in layers)
    if not binary:
        found.print("Nothing in this network is binary: it was compiled in float.", style="yellow")
    found.print(
        f"{binary} of {len(layers)} layers are binary. {size.deployed:,} bytes deployed, "
        f"{size.float32:,} as float32: a factor of {_factor(size)}. "
        f"A run takes {manifest.memory_bytes.peak_activations:,} bytes beside the weights."
    )
    if (in_c := manifest.standalone) is not UNSET:
        needs = ", ".join(in_c.undefined_symbols)
        found.print(
            f"standalone/lib{in_c.name}.a is the network for C: {in_c.code_and_constants:,} bytes, and a "
            f"workspace of {in_c.workspace_bytes:,}. It needs {needs or 'nothing'} of who links it."
        )
    if used := manifest.tuning.records:
        sources = ", ".join(sorted({u["source"] for u in used}))
        found.print(f"{len(used)} kernels have a tuned schedule, from {sources}.")
    if record.passed is None:
        found.print(f"Not verified. {record.reason}")
        return
    if not record.passed:
        found.print(f"The verification failed. {record.reason}", style="red")
    if not record.samples:
        return
    agreement = record.agreement
    found.print(
        f"Compared on {record.samples} inputs with {record.backend}: "
        + (f"top-1 agrees on {agreement:.1%}, " if agreement is not None else "")
        + f"largest difference {record.max_abs_error:.2g}, {record.flipped_signs:,} of "
        f"{record.signs:,} signs flipped ({record.excused_flips:,} by rounding), "
        f"integers {'exact' if record.integers_exact else 'WRONG'}."
    )
    if record.signs_at_zero:
        found.print(f"{record.signs_at_zero:,} signs are of an exact 0 in the source, and +1 here.")
    for sentence in record.not_compared or ():
        found.print(sentence, style="yellow")
    if accuracy := record.accuracy:
        found.print(f"Accuracy {accuracy.source:.2%} before compiling, {accuracy.compiled:.2%} after.")


def _factor(size: Sizes) -> str:
    """A small network is mostly code, and Winograd's kernels take more numbers than there are weights."""
    factor = size.float32 / size.deployed
    if factor >= 1:
        return f"{factor:.1f}"
    return (
        f"{factor:.2f}, since what is deployed has the code in it, and weights in the forms that kernels take"
    )


def _print_int8(found: Console, record: FloatArithmetic) -> None:
    if record.mode != "int8":
        return
    count = record.calibration_samples
    if record.calibrated_on == "samples":
        found.print(f"Float layers are in int8, calibrated on {count} samples.")
    else:
        found.print(
            f"Float layers are in int8, calibrated on {count} inputs of random numbers: their ranges are not "
            "those of real inputs, which --samples gives.",
            style="yellow",
        )
    found.print(
        f"Beside float32, on {record.compared_samples} of them: "
        + (f"top-1 agrees on {record.agreement:.1%}, " if record.agreement is not None else "")
        + f"largest difference {record.max_abs_error:.2g}."
    )
    if accuracy := record.accuracy:
        found.print(
            f"Accuracy {accuracy.float32:.2%} with float32, {accuracy.int8:.2%} with int8: "
            f"{100 * (accuracy.int8 - accuracy.float32):+.2f} points."
        )


def _print_layers(found: Console, manifest: Manifest) -> None:
    """For a terminal of 80 columns."""
    from rich.table import Table

    checks = {check.name: check for check in manifest.verification.layers or ()}
    table = Table(title=f"{manifest.model} for {manifest.target.name}", box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("binary")
    for column in ("MMAC", "bytes", *(["wrong sums", "flipped"] if checks else [])):
        table.add_column(column, justify="right")
    for layer in manifest.layers:
        check = checks.get(layer.name)
        table.add_row(
            layer.name,
            layer.op,
            "yes" if layer.binarized else "no" if layer.dtype == "float32" else layer.dtype,
            f"{layer.macs / 1e6:,.2f}",
            f"{layer.weight_bytes:,}",
            *([f"{check.wrong_sums:,}", f"{check.flipped_signs:,}"] if check else []),
        )
    found.print(table)


if __name__ == "__main__":
    run_command(app, "python -m bibench_tvm.compile")
