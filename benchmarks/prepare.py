"""Writes the files of a case, which each library reads in a process of its own. See contestants.py."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import shapes
from benchmarks.shapes import Shape
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.measuring.peers import onnx_runtime


def prepare_layer(case: Path, shape: Shape) -> None:
    """Signs, binary layer, floats in and out; besides, the same with channels last, and TVM's own kernel."""
    import torch

    binary, x = shapes.binary_layer(shape), shapes.example(shape)
    _prepare(case, binary, shapes.float_layer(shape), x)
    last, turned = shapes.channels_last(binary), x.permute(0, 2, 3, 1).contiguous()
    with torch.inference_mode():
        np.save(case / "expected channels last.npy", last(turned).numpy())
    _compile(last, turned, case / "ours_channels_last")
    _prepare_bitserial(case, binary, x, shape)


def prepare_mixed(case: Path, name: str) -> dict[str, float]:
    """A network of `networks.CASES`, ours and in float; gives the seconds of its compilation."""
    from benchmarks import networks

    case.mkdir(parents=True)
    (binary, x), (floats, _) = (networks.network(name, binary=binary) for binary in (True, False))
    np.save(case / "input.npy", x.numpy())
    np.save(case / "expected float.npy", onnx_runtime.export(floats, [x.numpy()], case / "float.onnx"))
    np.save(case / "expected binary.npy", _first_output(binary, x))
    start = time.process_time()
    artifact = _compile(binary, x, case / "ours", verify=1)
    if artifact.record.verification.passed is not True:
        raise BibenchError(f"The artifact of {name} does not compute what PyTorch does.")
    return {"compile_and_verify_s": round(time.process_time() - start, 1)}


def _first_output(network: Any, x: Any) -> np.ndarray:
    import torch
    from torch.utils import _pytree as pytree

    with torch.inference_mode():
        return pytree.tree_leaves(network(x))[0].numpy()


def prepare_network(case: Path, name: str) -> None:
    binary, x = shapes.network(name, "bnn")
    _prepare(case, binary, shapes.network(name, "fp32")[0], x)


def prepare_ours(case: Path, name: str) -> None:
    """A network of `trainers` for ours alone."""
    binary, x = shapes.network(name, "bnn")
    case.mkdir(parents=True)
    np.save(case / "input.npy", x.numpy())
    np.save(case / "expected binary.npy", _first_output(binary, x))
    _compile(binary, x, case / "ours")


def _prepare(case: Path, binary: Any, floats: Any, x: Any) -> None:
    import torch

    case.mkdir(parents=True)
    np.save(case / "input.npy", x.numpy())
    for name, network in {"binary": binary, "float": floats}.items():
        expected = onnx_runtime.export(network, [x.numpy()], case / f"{name}.onnx")
        np.save(case / f"expected {name}.npy", expected)
    torch.save(floats, case / "float.pt")
    _quantize(case, x.numpy())
    _compile(binary, x, case / "ours")


def _compile(network: Any, x: Any, folder: Path, verify: int = 0) -> Artifact:
    from bibench_tvm import compile_model

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        return compile_model(network, (x,), target="host", out=folder, verify=verify)


def _quantize(case: Path, x: np.ndarray) -> None:
    if not onnx_runtime.installed():
        return
    generator = np.random.default_rng(2)
    samples = [*([generator.standard_normal(x.shape).astype("float32")] for _ in range(3)), [x]]
    reduce_range = onnx_runtime.saturates_here()
    onnx_runtime.quantize(case / "float.onnx", case / "int8.onnx", samples, reduce_range=reduce_range)


def _prepare_bitserial(case: Path, binary: Any, x: Any, shape: Shape) -> None:
    import torch
    from torch.nn import functional

    weight = (binary[0].weight >= 0).to(torch.float32)
    padding = shape.kernel // 2
    with torch.inference_mode():
        expected = functional.conv2d((x >= 0).to(torch.float32), 2 * weight - 1, None, shape.stride, padding)
    np.save(case / "expected bitserial.npy", expected.numpy())
    np.savez(
        case / "bitserial.npz",
        x=np.ascontiguousarray(np.moveaxis(x.numpy(), 1, -1)),
        kernel=np.ascontiguousarray(weight.permute(2, 3, 1, 0).numpy().astype("uint8")),
        stride=shape.stride,
        padding=padding,
        out_shape=np.moveaxis(expected.numpy(), 1, -1).shape,
    )
