"""What a kernel takes in besides its layer: the signs of a grouped layer, and its numbers in planes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bibench_tvm import compile_model

# Groups, output channels of each, channels of each.
GROUPS = [(2, 1, 8), (8, 1, 16), (3, 1, 3), (8, 1, 1), (4, 2, 8), (3, 3, 5), (8, 5, 2), (2, 8, 4), (2, 12, 8)]


def signs(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, -1.0)


class Layers(nn.Module):
    """x: (2, 128, 6, 5); of whole numbers all, so that the order of a sum does not matter."""

    def __init__(self, binary: bool, size: int) -> None:
        super().__init__()
        self.binary = binary
        self.first, self.second = nn.ParameterList(), nn.ParameterList()
        for groups, filters, channels in GROUPS:
            self.first.append(torch.randint(-2, 3, (groups * filters, channels, size, size)).float())
            self.second.append(signs(torch.randn(8, groups * filters, 1, 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        results = []
        for (groups, _, channels), first, second in zip(GROUPS, self.first, self.second, strict=True):
            given = x[:, : groups * channels]
            given, weight = (signs(given), signs(first)) if self.binary else (given, first)
            sums = F.conv2d(given, weight, groups=groups)
            results += [F.conv2d(signs(sums), second), sums]
        return results


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("binary", [False, True])
def test_grouped_layers_and_their_signs(binary: bool, size: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Layers(binary, size).eval(), torch.randint(-2, 3, (2, 128, 6, 5)).float()
    artifact = compile_model(model, x, out=tmp_path)
    layers = zip(np.repeat(GROUPS, 2, axis=0).tolist(), artifact.run(x.numpy()), model(x), strict=True)
    for groups, ours, theirs in layers:
        np.testing.assert_array_equal(ours, theirs.detach().numpy(), err_msg=str(groups))
