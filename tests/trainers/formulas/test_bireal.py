"""Bi-Real Net: o = (sign(a) * sign(w)) . alpha with the polynomial's gradient, eqs 15 and 16."""

from typing import Any

import numpy as np
import torch
from torch import nn

import trainers
from tests.trainers.formulas import (
    Learned,
    add_bias,
    clip,
    mean_of_channels,
    per_channel,
    poly,
    products,
    signs,
    through_signs,
    weights_of,
)

NEEDS = 1
NAN_STAYS = False
DIFFERS: tuple[str, ...] = ()


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    w = weights_of(layer)
    return add_bias(layer, products(layer, signs(x), signs(w)) * per_channel(layer, mean_of_channels(w)))


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    alpha = mean_of_channels(w)
    to_a, to_w = through_signs(poly(a), clip(w, variant), signs(a), signs(w), alpha)
    # As released, alpha is part of the value through which the gradient passes, and not in the gradient.
    return to_a, to_w / alpha[:, None] if variant == "released" else to_w


def test_the_polynomial_is_two_at_zero_and_nothing_at_the_ends() -> None:
    layer = trainers.binarize(nn.Linear(5, 1, bias=False), "bireal").train()
    nn.init.ones_(layer.get_parameter("weight"))
    a = torch.tensor([[-1.0, -0.0, 0.0, 1.0, 7.0]], requires_grad=True)
    layer(a).sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[0.0, 2.0, 2.0, 0.0, 0.0]]
