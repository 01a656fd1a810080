"""What leaves PyTorch computes what PyTorch computes, and has only what the compiler knows."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import trainers

BINARY = [name for name in trainers.list_algorithms() if name != "fp32"]
VARIANTS = ["paper", "released"]


class Net(nn.Module):
    """Each kind of layer, with groups, dilation, stride and the paddings that need `F.pad`."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(4, 8, 3, 2, padding=2, groups=2)
        self.dilated = nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=8)
        self.reflecting = nn.Conv2d(8, 6, (3, 2), padding=1, padding_mode="reflect", bias=False)
        self.over_time = nn.Conv1d(6, 6, 4, padding="same")
        self.classifier = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.strided, self.dilated, self.reflecting):
            x = nn.functional.hardtanh(layer(x))
        return self.classifier(nn.functional.hardtanh(self.over_time(x.flatten(2))).mean(-1))


def build(algorithm: str, variant: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return trainers.binarize(Net(), algorithm, variant, keep=[]).eval(), torch.randn(2, 4, 9, 9)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
def test_torch_export(algorithm: str, variant: str) -> None:
    model, x = build(algorithm, variant)
    program = torch.export.export(model, (x,), strict=True)
    assert torch.equal(program.module()(x), model(x))
    operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert operators.count("aten.where.Scalar") == 2 * 5  # the two operands of five layers, and no more
    assert not {name for name in operators if name.split(".")[1] in ("sin", "cos", "relu", "sort", "alias")}
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    assert not [name for name in used if "noise" in name]
    assert all(name.startswith("aten.") for name in operators), "an autograd function or control flow"


@pytest.mark.parametrize("algorithm", BINARY)
def test_torch_export_not_strict_and_of_any_batch(algorithm: str) -> None:
    model, x = build(algorithm, "paper")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False)
    more = torch.randn(5, 4, 9, 9)
    assert torch.equal(program.module()(more), model(more))


@pytest.mark.parametrize("algorithm", BINARY)
def test_onnx(algorithm: str, tmp_path: Path) -> None:
    import onnxruntime as runtime

    model, x = build(algorithm, "paper")
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(copy.deepcopy(model), (x,), path, dynamo=True, verbose=False)
    # Its optimisations multiply the scale into the weights, and then a sum that is 0 may get either sign.
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (y,) = runtime.InferenceSession(path, options).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
