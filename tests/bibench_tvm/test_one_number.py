"""A scale or a threshold that is one number of no dimension, which the network computes or is given."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bibench_tvm import compile_model


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


class Layers(nn.Module):
    """(1, 8, 6, 6) and () -> what meets one number, a mean, a largest or an input, around layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(signs(torch.randn(8, 8, 3, 3)))
        self.depthwise = nn.Parameter(signs(torch.randn(8, 1, 3, 3)))
        self.float_weight = nn.Parameter(torch.randn(8, 8, 3, 3))
        self.matrix = nn.Parameter(signs(torch.randn(9, 36)))

    def forward(self, x: Tensor, t: Tensor) -> list[Tensor]:
        rows, mean = x.flatten(2), x.mean()
        sums = F.conv2d(signs(x), self.weight, padding=1)
        return [
            F.linear(signs(rows), self.matrix) * x.abs().mean(),
            F.linear(torch.where(rows >= mean, 1.0, -1.0), self.matrix),
            torch.softmax(F.linear(signs(rows), self.matrix) * mean, -1) * x.amax(),
            torch.where(signs(rows) @ signs(rows).transpose(-1, -2) > mean, 1.0, 0.0) @ signs(rows) * mean,
            F.conv2d(signs(sums * x.amax() - mean), self.weight) * t,
            F.conv2d(signs(x - t), self.weight) * torch.sigmoid(mean),
            F.conv2d(signs(F.conv2d(x, self.float_weight, padding=1) - mean), self.weight),
            F.conv2d(signs(x), self.depthwise, groups=8) * mean + x.amax(),
            F.max_pool2d(sums, 2) * mean,
            (sums * mean).permute(0, 2, 3, 1),
            F.conv_transpose2d(signs(x), self.weight) * mean,
            sums.mean(),
        ]


def test_one_number_meets_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Layers().eval(), (torch.randn(1, 8, 6, 6), torch.tensor(0.3))
    artifact = compile_model(model, inputs, out=tmp_path, verify=2)
    assert artifact.manifest["verification"]["passed"] is True
    for ours, theirs in zip(artifact.run(*(x.numpy() for x in inputs)), model(*inputs), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)
