"""XNOR-Net++: o = (sign(a) * sign(w)) . (alpha x beta x gamma), eqs 17-18."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from tests.trainers.formulas import (
    Learned,
    add_bias,
    clip,
    products,
    signs,
    through_signs,
    weights_of,
)

NEEDS = 1
NAN_STAYS = False
DIFFERS: tuple[str, ...] = ()


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    y = products(layer, signs(x), signs(weights_of(layer))) * learned["alpha"]
    spatial = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    if spatial:
        y = y * learned["extents.0"][: y.shape[2]].reshape(-1, *(1,) * (spatial - 1))
    if spatial == 2:
        y = y * learned["extents.1"][: y.shape[3]]
    return add_bias(layer, y)


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    return through_signs(clip(a, variant), clip(w, variant), signs(a), signs(w), learned["alpha"])


def test_the_learned_scale_gets_the_gradient_of_a_product() -> None:
    layer = trainers.binarize(nn.Linear(4, 1, bias=False), "xnorpp").train()
    nn.init.ones_(layer.get_parameter("weight"))
    layer(torch.tensor([[1.0, 2.0, -3.0, 4.0]])).backward()
    gradient = layer.get_parameter("alpha").grad
    assert gradient is not None
    assert gradient.item() == 2.0  # the integer that it scales: 1 + 1 - 1 + 1


def test_what_is_too_large_is_said() -> None:
    layer = trainers.binarize(nn.Conv1d(1, 1, 1), "xnorpp")
    assert layer(torch.randn(1, 1, 2000)).shape == (1, 1, 2000)
    with pytest.raises(ValueError, match="at most 2000 positions in a row, not 2001"):
        layer(torch.randn(1, 1, 2001))
