"""`python -m benchmarks.architectures`: every architecture through the compiler, binarized by each algorithm.

For each case: how many layers are binary of those that should be, and whether the artifact computes what
PyTorch does. Should be binary: what `binarize` made binary, and every product of two activations but those of
floats, which a network is known to have. One line of JSON a case is appended to a file; a case that is in it
already is not repeated.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.shapes import chosen
from benchmarks.tables import tell
from bibench_tvm.cli.console import Debug, phase, reporting, stderr
from bibench_tvm.cli.errors import BibenchError, first_line

ALGORITHMS = ("bnn", "xnor", "xnorpp", "reactnet", "fda")
FLOAT_PRODUCTS = {"pointnet": 2}  # of activations that are floats: PointNet's points and features by a matrix

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def architectures_command(
    small: Annotated[bool, typer.Option("--small/--full", help="Small sizes, or those of the paper.")] = True,
    target: Annotated[str, typer.Option(help="host, or arm_cpu under QEMU.")] = "host",
    architectures: Annotated[str, typer.Option(help="Names, or all.")] = "all",
    algorithms: Annotated[str, typer.Option(help="Of bnn, xnor, xnorpp, reactnet and fda.")] = "",
    out: Annotated[Path, typer.Option(help="The file of results, which is gone on with.")] = Path(
        "architectures.jsonl"
    ),
    debug: Debug = False,
) -> None:
    """Compile and verify them; exit 1 if a layer that should be binary is not, or one is not exact."""
    with reporting(as_json=False, debug=debug):
        import trainers

        known = tuple(name for name in trainers.list_models() if name.endswith("@small") == small)
        names = list(known) if architectures == "all" else chosen("architecture", architectures, known)
        picked = chosen("algorithm", algorithms or ",".join(ALGORITHMS if small else ["bnn"]), ALGORITHMS)
        wanted = [{"arch": n, "algorithm": a, "target": target} for n in names for a in picked]
        done = _read(out)
        for i, case in enumerate(wanted):
            if _key(case) in done:
                continue
            with phase(f"{i + 1}/{len(wanted)}: {case['arch']}, {case['algorithm']}, {target}"):
                result = try_case(**case)
            done[_key(case)] = result
            cut_off = out.exists() and not out.read_text().endswith("\n")
            with out.open("a") as file:
                file.write("\n" * cut_off + json.dumps(result) + "\n")
            if not falls_short(result):
                continue
            stderr.print(f"{case['arch']}, {case['algorithm']}, {target}: {result['reason']}", style="red")
        results = [done[_key(case)] for case in wanted]
        tell({"cases": results}, [_table(results)], as_json=False)
        if short := [r for r in results if falls_short(r)]:
            raise BibenchError(f"{len(short)} of {len(results)} cases fall short.")


def _key(case: dict[str, Any]) -> tuple[str, str, str]:
    return case["arch"], case["algorithm"], case["target"]


def _read(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What a file holds, by case; a last line that was cut off counts for nothing."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[_key(result)] = result
    return found


def falls_short(result: dict[str, Any]) -> bool:
    """Whether a layer that should be binary is not, or the verification did not pass."""
    return result["binary"] < result["should_be"] or result["passed"] is not True


def try_case(arch: str, algorithm: str, target: str) -> dict[str, Any]:
    """The line of one case; what goes wrong in it is its `reason`."""
    start = time.monotonic()
    try:
        found = _compiled(arch, algorithm, target)
    except Exception as error:
        found = {"binary": 0, "should_be": 1, "passed": None, "reason": first_line(error)}
    seconds = round(time.monotonic() - start, 1)
    return {"arch": arch, "algorithm": algorithm, "target": target, **found, "seconds": seconds}


def _compiled(arch: str, algorithm: str, target: str) -> dict[str, Any]:
    import torch

    import trainers
    from bibench_tvm import compile_model
    from trainers.models.faster_rcnn import FasterRCNN

    torch.manual_seed(0)
    model = trainers.binarize(trainers.create_model(arch), algorithm)
    _settle(model)
    parts = {"": model}
    if isinstance(model, FasterRCNN):
        parts = {"first.": model.first, "second.": model.second}
    layers, verifications = [], []
    for prefix, part in parts.items():
        with tempfile.TemporaryDirectory() as folder:
            manifest = compile_model(part.eval(), target=target, out=folder, verify=1).manifest
        layers += [layer | {"name": prefix + layer["name"]} for layer in manifest["layers"]]
        verifications.append(manifest["verification"])
    binary = {layer["name"] for layer in layers if layer["binarized"]}
    products = [layer for layer in layers if layer["op"] == "matmul"]
    should = {layer.name for layer in trainers.binarization_report(model) if layer.binary}
    floats = [layer for layer in layers if layer["name"] in should - binary]
    left = [layer for layer in products if not layer["binarized"]]
    allowed = FLOAT_PRODUCTS.get(arch.removesuffix("@small"), 0)
    floats += left if len(left) > allowed else []
    reasons = [f"{layer['name']} stays float, as {layer['reason']}" for layer in floats]
    passed = [verification["passed"] for verification in verifications]
    return {
        "binary": len(should & binary) + len(products) - len(left),
        "should_be": len(should) + len(products) - allowed,
        "passed": next((each for each in passed if each is not True), True),
        "reason": "; ".join([*reasons, *filter(None, [each["reason"] for each in verifications])]),
    }


def _settle(model: Any) -> None:
    """Give batch norms the statistics of a training; text has none."""
    import torch

    import trainers

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    inputs = trainers.example_inputs_of(model)
    if not norms or not isinstance(inputs, tuple):
        return
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        model.train()(*(torch.randn(4, *x.shape[1:]) for x in inputs))


def _table(results: Iterable[dict[str, Any]]) -> Table:
    table = Table(title="Binary layers of those that should be, and whether they compute what PyTorch does")
    for column in ("architecture", "algorithm", "target", "binary", "should be", "exact", "seconds"):
        table.add_column(column)
    for r in results:
        exact = {True: "yes", False: "no", None: "not verified"}[r["passed"]]
        cells = str(r["binary"]), str(r["should_be"]), exact, str(r["seconds"])
        table.add_row(r["arch"], r["algorithm"], r["target"], *cells)
    return table


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.architectures")
