"""Networks of several layers side by side, compiled and compared with what they were compiled of."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bibench_tvm import compile_model
from bibench_tvm.artifact.artifact import Artifact


def verified(
    model: nn.Module, x: Tensor, names: Collection[str], source: str, folder: Path
) -> tuple[Artifact, dict[str, Any]]:
    """The artifact, and the layer of each name; the model has an output and a layer for each, in order.

    source: "torch", "core" (a program of core operators), "onnx" (by the exporter of TorchScript) or "dynamo"
    (by the newer one).
    """
    given: Any = model
    if source == "core":
        given = torch.export.export(model, (x,), strict=False).run_decompositions()
    elif source != "torch":
        given = folder / "model.onnx"
        torch.onnx.export(model, (x,), str(given), dynamo=source == "dynamo", verbose=False)
    artifact = compile_model(given, x, target="host", out=folder / "out", verify=1)
    verification = artifact.manifest["verification"]
    assert verification["passed"] and verification["integers_exact"], verification["reason"]
    for name, ours, theirs in zip(names, artifact.run(x.numpy()), model(x), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5, err_msg=name)
    return artifact, dict(zip(names, artifact.manifest["layers"], strict=True))
