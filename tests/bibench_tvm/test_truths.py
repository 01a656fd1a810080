"""Numbers that are made of truths, bound to names in kernels of ours and TVM's, in vectors and one by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bibench_tvm import compile_model

Function = Callable[[torch.Tensor], torch.Tensor]


def gated(y: torch.Tensor) -> torch.Tensor:
    return y * (y > 0.5).to(y.dtype)


def of_integers(y: torch.Tensor) -> torch.Tensor:
    above = (y > 0.5).int()
    return ((above * 2 - 1).float() * y + (above - (y < -0.5).long()).float()) ** 2


BEHIND: dict[str, Function] = {
    "a square": lambda y: gated(y) ** 2,
    "read twice": lambda y: gated(y) - torch.abs(gated(y) - 1),
    "a sigmoid": lambda y: torch.sigmoid((y > 0.5).float()),
    "of integers": of_integers,
    "times integers": lambda y: ((y > 0.5).int().float() * y) ** 2,
    "times a difference of integers": lambda y: (((y > 0.5).int() - (y < -0.5).int()).float() * y) ** 2,
    "a function of integers": lambda y: torch.tanh((y > 0.5).long().float() * y),
}


class Layer(nn.Module):
    def __init__(self, channels: int, operand: Function, behind: Function) -> None:
        super().__init__()
        signs = np.where(np.random.default_rng(0).random((channels, 12)) < 0.5, -1, 1)
        self.weight = nn.Parameter(torch.from_numpy(signs.astype(np.float32)))
        self.operand, self.behind = operand, behind

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.behind(F.linear(self.operand(x), self.weight)), self.behind(x)


@pytest.mark.parametrize("channels", [1, 5, 16])
@pytest.mark.parametrize("behind", BEHIND)
def test_as_pytorch(behind: str, channels: int, tmp_path: Path) -> None:
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 5, 12)).astype(np.float32))
    operands: dict[str, Function] = {"binary": lambda x: torch.where(x >= 0, 1.0, -1.0), "float": torch.abs}
    for kind, operand in operands.items():
        model = Layer(channels, operand, BEHIND[behind])
        ours = compile_model(model, x, out=tmp_path / kind).run(x.numpy())
        with torch.no_grad():
            for a, b in zip(ours, model(x), strict=True):
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-5)
