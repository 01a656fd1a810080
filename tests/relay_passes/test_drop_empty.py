"""Slices of nothing, as exported networks have them, leave nothing behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bibench_tvm import compile_model


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


# Of a linear layer of 8 to 4, and x: [N, 8].
NETWORKS: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "concat": lambda layer, x: layer(torch.cat([x, x[:, 8:]], 1)),
    "concat of what was computed": lambda layer, x: torch.cat([layer(x), F.relu(layer(x)[:, 4:] * 2)], 1),
    "before signs": lambda layer, x: F.linear(signs(torch.cat([x, x[:, :0] + 1], 1)), signs(layer.weight)),
    "more dimensions": lambda layer, x: layer(
        torch.cat([x.reshape(-1, 2, 4), x[:, :0].reshape(x.shape[0], 0, 4)], 1).flatten(1)
    ),
    "split": lambda layer, x: layer(torch.cat(x.split([3, 0, 5], 1)[::-1], 1)),
    "sum": lambda layer, x: layer(x) + x[:, 8:].sum(1, keepdim=True),
    "product": lambda layer, x: layer(x) + x[:, 8:].prod(1, keepdim=True),
    "any and all": lambda layer, x: (
        layer(x) + (x[:, 8:] > 0).any(1, keepdim=True) + 2 * (x[:, 8:] > 0).all(1, keepdim=True)
    ),
    "matrices": lambda layer, x: layer(x) + x[:, :0] @ torch.zeros(0, 4),
}


class Network(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.layer = name, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return NETWORKS[self.name](self.layer, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_comes_of_nothing(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Network(name).eval(), torch.randn(3, 8)
    artifact = compile_model(model, x, out=tmp_path, verify=2)
    assert artifact.manifest["verification"]["passed"] is True
    np.testing.assert_allclose(artifact.run(x.numpy()), model(x).detach().numpy(), atol=1e-6)
