"""Whole files of each kind, which are the seeds, and files that are mutated from them."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from tests.fuzz.mutations import mutated

KINDS = ("onnx", "pt2", "checkpoint", "manifest", "npy")


def files(kind: str, count: int, seed: int, folder: Path) -> Iterator[Path]:
    """So many mutated files, one at a time: what is yielded may be changed by the next."""
    base = folder / "artifact" if kind == "manifest" else folder
    base.mkdir(parents=True, exist_ok=True)
    seeds = seeds_of(kind, base)
    for number in range(count):
        rng = random.Random(f"{kind} {seed} {number}")
        data = mutated(kind, seeds, rng)
        path = base / "manifest.json" if kind == "manifest" else folder / f"mutated-{number}.{kind}"
        path.write_bytes(data)
        yield base if kind == "manifest" else path
        if kind != "manifest":
            path.unlink(missing_ok=True)


def seeds_of(kind: str, folder: Path) -> list[bytes]:
    """Whole files of a kind; for a manifest, `folder` becomes an artifact."""
    return cast(list[bytes], globals()[f"_{kind}_seeds"](folder))


def _network() -> Any:
    import torch

    import trainers

    torch.manual_seed(0)
    layers = torch.nn
    body = [layers.Conv2d(3, 8, 3, padding=1), layers.BatchNorm2d(8), layers.Conv2d(8, 8, 3, padding=1)]
    return trainers.binarize(
        layers.Sequential(
            *body, layers.Hardtanh(), layers.MaxPool2d(2), layers.Flatten(), layers.Linear(128, 4)
        ),
        "bnn",
    ).eval()


def _onnx_seeds(folder: Path) -> list[bytes]:
    import numpy as np
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper

    path = folder / "seed.onnx"
    torch.onnx.export(_network(), (torch.zeros(1, 3, 8, 8),), path, dynamo=False)
    # Functions within functions, shapes that are computed, half precision, and a constant that is expanded.
    sites = helper.make_opsetid("", 18), helper.make_opsetid("own", 1)
    inner = helper.make_function(
        "own", "Inner", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], sites[:1]
    )
    outer = helper.make_function(
        "own",
        "Outer",
        ["x"],
        ["y"],
        [helper.make_node("Inner", [a], [b], domain="own") for a, b in (("x", "m"), ("m", "y"))],
        sites,
    )
    nodes = [
        helper.make_node("Outer", ["x"], ["a"], domain="own"),
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["b"]),
        helper.make_node("Expand", ["k", "s"], ["e"]),
        helper.make_node("Mul", ["b", "e"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["p"]),
        helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["p", "f"], ["y"]),
    ]
    half = helper.make_tensor("w", TensorProto.BFLOAT16, [4, 2], [1.0, -1.0] * 4)
    constants = [
        numpy_helper.from_array(np.float32(2), "two"),
        numpy_helper.from_array(np.ones(1, "f4"), "k"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "own", [value("x", 1, [3, 4])], [value("y", 1, [3, 2])], [half, *constants]
    )
    functions = helper.make_model(graph, opset_imports=sites, functions=[inner, outer], ir_version=10)
    onnx.checker.check_model(functions)
    return [path.read_bytes(), functions.SerializeToString()]


def _pt2_seeds(folder: Path) -> list[bytes]:
    import torch

    class Sizes(torch.nn.Module):
        """Symbolic sizes in the file."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.cat([x, x[:, 1:]], 1)
            return torch.nn.functional.pad(y, (0, 2)).reshape(-1).sum() + y.mean()

    batch = torch.export.Dim("batch", min=2, max=64)
    width = torch.export.Dim("width", min=4, max=64)
    programs = [
        torch.export.export(_network(), (torch.zeros(1, 3, 8, 8),)),
        torch.export.export(Sizes(), (torch.zeros(3, 8),), dynamic_shapes={"x": {0: batch, 1: width}}),
        torch.export.export(torch.nn.Linear(4, 2).bfloat16(), (torch.zeros(1, 4, dtype=torch.bfloat16),)),
    ]
    found = []
    for program in programs:
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        found.append(buffer.getvalue())
    return found


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    import torch

    import trainers

    path = folder / "seed.pt"
    small = trainers.binarize(trainers.create_model("resnet20"), "xnor")
    trainers.save_checkpoint(
        path,
        small,
        arch="resnet20",
        algorithm="xnor",
        variant="paper",
        sizes={"num_classes": 10, "in_channels": 3},
    )
    old = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    return [path.read_bytes(), path.read_bytes(), old.getvalue()]


def _manifest_seeds(folder: Path) -> list[bytes]:
    import torch

    from bibench_tvm import compile_model

    compile_model(_network(), torch.zeros(1, 3, 8, 8), out=folder)
    return [(folder / "manifest.json").read_bytes()]


def _npy_seeds(folder: Path) -> list[bytes]:
    import numpy as np

    one, several = io.BytesIO(), io.BytesIO()
    np.save(one, np.ones((2, 3), "float32"))
    np.savez(several, x=np.ones((2, 3), "float32"), y=np.arange(4))
    return [one.getvalue(), several.getvalue()]
