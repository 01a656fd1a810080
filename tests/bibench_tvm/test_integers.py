"""Integers stay integers: products, choices and sums of them, also where a layer has its channels last."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bibench_tvm import compile_model

WEIGHTS = torch.from_numpy(np.random.default_rng(0).integers(-3, 4, (8, 5)))
OFFSETS = torch.tensor([1, 2, 3]).view(3, 1, 1)
OF_INTEGERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a product": lambda x: x @ WEIGHTS,
    "a product from the left": lambda x: WEIGHTS.t() @ x.transpose(2, 3),
    "a product of 32 bits": lambda x: x.int() @ WEIGHTS.int(),
    "a product of signs": lambda x: ((x > 0).long() * 2 - 1) @ torch.where(WEIGHTS > 0, 1, -1),
    "a product of two": lambda x: x @ x.transpose(2, 3),
    "a linear layer": lambda x: F.linear(x, WEIGHTS.t()),
    "a number or what is": lambda x: torch.where(x > 0, x, 0),
    "what is or a number": lambda x: x.masked_fill(x > 0, 3),
    "channels last": lambda x: (x.permute(0, 2, 3, 1) + torch.tensor([1, 2, 3])).permute(0, 3, 1, 2) * 2,
}


class Of(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.parametrize("case", OF_INTEGERS)
def test_of_integers(case: str, tmp_path: Path) -> None:
    x = torch.from_numpy(np.random.default_rng(1).integers(-5, 6, (1, 3, 4, 8)))
    artifact = compile_model(Of(OF_INTEGERS[case]), x, out=tmp_path, verify=2)
    expected = OF_INTEGERS[case](x).numpy()
    found = artifact.run(x.numpy())
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    assert artifact.manifest["verification"]["passed"] is True
    for layer in artifact.manifest["layers"]:
        assert not layer["binarized"] and "integers" in layer["reason"]


class Behind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.register_buffer("offsets", OFFSETS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layer(x)
        return y.long() + self.offsets, torch.where(y > 0, self.offsets, y.argmax(1, keepdim=True))


def test_behind_a_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Behind(), torch.randn(1, 3, 4, 5)
    for ours, theirs in zip(compile_model(model, x, out=tmp_path).run(x.numpy()), model(x), strict=True):
        assert ours.dtype == np.int64 and np.array_equal(ours, theirs.numpy())
