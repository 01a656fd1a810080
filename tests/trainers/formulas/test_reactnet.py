"""ReActNet: o = (rsign(a) * sign(w)) . alpha with a learned threshold, eqs 19 to 24."""

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


def rsign(x: np.ndarray, variant: str, learned: Learned) -> np.ndarray:
    return signs(x, learned["threshold"], -1 if variant == "paper" else 1)


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    w = weights_of(layer)
    y = products(layer, rsign(x, variant, learned), signs(w))
    return add_bias(layer, y * per_channel(layer, mean_of_channels(w)))


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    alpha = mean_of_channels(w)
    of_a = poly(a - learned["threshold"])
    to_a, to_w = through_signs(of_a, clip(w, variant), rsign(a, variant, learned), signs(w), alpha)
    # As released, alpha is part of the value through which the gradient passes, and not in the gradient.
    return to_a, to_w / alpha[:, None] if variant == "released" else to_w


def test_the_threshold_gets_minus_the_gradient_of_the_activation() -> None:
    layer = trainers.binarize(nn.Linear(4, 1, bias=False), "reactnet").train()
    nn.init.constant_(layer.get_parameter("threshold"), 0.25)
    a = torch.tensor([[0.5, -0.25, 0.75, -1.5]], requires_grad=True)
    layer(a).backward()
    assert a.grad is not None
    threshold = layer.get_parameter("threshold").grad
    assert threshold is not None
    assert torch.equal(threshold, -a.grad[0])  # eq. 22
