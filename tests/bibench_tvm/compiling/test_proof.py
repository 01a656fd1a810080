"""All algorithms, compiled, compute what PyTorch computes: here and on an emulated Arm board.

`pytest tests/bibench_tvm/compiling/test_proof.py --images 300` takes all bundled images.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import trainers
from bibench_tvm import compile_model, load
from trainers.operator import BinaryLayer

ALGORITHMS = [name for name in trainers.list_algorithms() if name != "fp32"]


@pytest.mark.parametrize("target", ["host", "arm_cpu"])
@pytest.mark.parametrize("arch", ["resnet20", "vgg_small"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm(
    algorithm: str,
    arch: str,
    target: str,
    network: Callable[..., torch.nn.Module],
    images: np.ndarray,
    board: None,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    tmp_path: Path,
) -> None:
    count = request.config.getoption("--images")
    model = network(arch, algorithm)
    binary = {name for name, module in model.named_modules() if isinstance(module, BinaryLayer)}
    example = torch.zeros(1, 3, 32, 32)
    compile_model(model, example, target=target, out=tmp_path, verify=count, samples=images)

    manifest = load(tmp_path).manifest
    assert manifest["algorithm"] == algorithm
    assert {layer["name"] for layer in manifest["layers"] if layer["binarized"]} == binary
    record = manifest["verification"]
    for key in ("agreement", "max_abs_error", "flipped_signs", "signs"):
        record_property(key, record[key])
    assert record["samples"] == count
    assert record["backend"] == ("host" if target == "host" else "qemu-aarch64 -cpu cortex-a53")
    assert record["integers_exact"] is True
    assert record["agreement"] >= 0.99
    assert record["passed"] is True, record["reason"]
    assert len(record["layers"]) == len(binary)
    assert all(check["sums"] > 0 and check["signs"] > 0 for check in record["layers"])
