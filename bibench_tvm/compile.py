"""`python -m bibench_tvm.compile [MODEL] --target NAME`: a network in, an artifact out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bibench_tvm.console import print_json, reporting, stderr
from bibench_tvm.errors import UsageError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compile_command(
    target: Annotated[str, typer.Option(help="arm_cpu, host, a device such as rpi4b, armv7, or a TVM target tag.")],
    model: Annotated[Path | None, typer.Argument(help=".pt2, .onnx or checkpoint; the bundled network if left out.")] = None,
    arch: Annotated[str | None, typer.Option(help="Compile this network with fresh weights, or say what a checkpoint is.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="The binarization algorithm of --arch.")] = None,
    variant: Annotated[str | None, typer.Option(help="paper or released.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="The same as MODEL, for a checkpoint.")] = None,
    input_shape: Annotated[list[str] | None, typer.Option(help="NAME:1x3x32x32 for a dynamic input; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the artifact.")] = Path("build"),
    verify: Annotated[int, typer.Option(min=0, help="Compare with the source network on so many inputs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest to standard output.")] = False,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """Compile a binarized network for an Arm processor, or for this machine."""
    with reporting(as_json=as_json, debug=debug):
        from bibench_tvm.compiler import compile_model
        from bibench_tvm.importer import parse_input_shape

        if model and checkpoint:
            raise UsageError("MODEL and --checkpoint name the same thing; give one of them.")
        shapes = dict(parse_input_shape(text) for text in input_shape or [])
        source = model or checkpoint
        options: dict[str, Any] = {"target": target, "out": out, "verify": verify, "input_shapes": shapes or None}
        if source is not None:
            options |= {"model": source, "arch": arch, "algorithm": algorithm, "variant": variant}
        elif arch is not None:
            options |= _fresh(arch, algorithm or "fp32", variant or "paper", shapes)
        elif algorithm or variant:
            raise UsageError("--algorithm and --variant say how to binarize a network; name it with --arch.")
        else:
            options |= _bundled(verify)
        artifact = compile_model(**options)
        _print_table(artifact.manifest)
        failed = artifact.manifest["verification"]["passed"] is False
        if as_json:
            print_json({**artifact.manifest, "path": str(artifact.folder)})
        stderr.print(f"Written to {artifact.folder}")
        if failed:
            stderr.print("[red]The verification failed: the artifact does not compute what was trained.[/red]")
            raise typer.Exit(1)


def _fresh(arch: str, algorithm: str, variant: str, shapes: dict[str | None, tuple[int, ...]]) -> dict[str, Any]:
    """A network with untrained weights, the same each time: for its speed and size."""
    import torch

    import trainers

    torch.manual_seed(0)
    network = trainers.binarize(trainers.create_model(arch), algorithm=algorithm, variant=variant)
    if len(shapes) > 1:
        raise UsageError(f"{arch} has one input; give one --input-shape.")
    shape = next(iter(shapes.values()), (1, *network.input_shape))
    return {
        "model": network,
        "example_inputs": (torch.zeros(shape),),
        "name": arch,
        "algorithm": algorithm,
        "input_shapes": None,
    }


def _bundled(verify: int) -> dict[str, Any]:
    from bibench_tvm.bundled import IMAGES, NETWORK
    from trainers.tasks.fashion_mnist import load_sample_images

    images, labels = load_sample_images(IMAGES)
    if verify > len(images):
        raise UsageError(f"The bundled network comes with {len(images)} images; --verify {verify} asks for more.")
    return {"model": NETWORK, "samples": images, "labels": labels}


def _print_table(manifest: dict[str, Any]) -> None:
    checks = {c["name"]: c for c in manifest["verification"].get("layers", [])}
    table = Table(title=f"{manifest['model']} for {manifest['target']['name']}")
    for column in ("layer", "operator", "binary", "MMAC", "bytes", *(["sums wrong", "signs flipped"] if checks else [])):
        table.add_column(column, justify="right" if column in ("MMAC", "bytes", "sums wrong", "signs flipped") else "left")
    table.add_column("reason")
    for layer in manifest["layers"]:
        check = checks.get(layer["name"])
        seen = [f"{check['wrong_sums']} of {check['sums']}", f"{check['flipped_signs']} of {check['signs']}"] if check else ["", ""]
        table.add_row(
            layer["name"],
            layer["op"],
            "yes" if layer["binarized"] else "no",
            f"{layer['macs'] / 1e6:.2f}",
            f"{layer['weight_bytes']:,}",
            *(seen if checks else []),
            layer["reason"] or layer["notes"],
        )
    stderr.print(table)
    size = manifest["size_bytes"]
    stderr.print(
        f"{size['deployed']:,} bytes deployed, {size['float32']:,} as float32: {size['float32'] / size['deployed']:.1f} "
        f"times smaller"
    )
    if not any(layer["binarized"] for layer in manifest["layers"]):
        stderr.print("[yellow]Nothing in this network is binary: it was compiled in float.[/yellow]")
    record = manifest["verification"]
    if record["backend"] is None:
        stderr.print(f"Not verified. {record['reason']}")
        return
    stderr.print(
        f"Verified on {record['samples']} inputs with {record['backend']}: top-1 agrees on {record['agreement']:.1%}, "
        f"largest difference {record['max_abs_error']:.2g}, {record['flipped_signs']} of {record['signs']} signs flipped"
    )
    if accuracy := record.get("accuracy"):
        stderr.print(f"Accuracy {accuracy['source']:.2%} before compiling, {accuracy['compiled']:.2%} after")


if __name__ == "__main__":
    app(prog_name="python -m bibench_tvm.compile")
