"""AdaBin: o = sum of (alpha_a sign(v) + beta_a)(alpha_w sign(u) + beta_w), released with alpha_a beta_a."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from tests.trainers.formulas import Learned, add_bias, correlate, poly, signs, weights_of

NEEDS = 2
NAN_STAYS = False
DIFFERS: tuple[str, ...] = ()


def sets(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """beta_w and alpha_w, broadcastable to w."""
    shape = (len(w), *(1,) * (w.ndim - 1))
    flat = w.reshape(len(w), -1)
    centre = flat.sum(1) / flat.shape[1]
    distance = np.linalg.norm(flat - centre[:, None], axis=1) / np.sqrt(flat.shape[1])
    return centre.reshape(shape), distance.reshape(shape)


def activations(a: np.ndarray, variant: str, learned: Learned) -> np.ndarray:
    alpha, beta = learned["alpha"], learned["beta"]
    s = signs((a - beta) / alpha)
    return alpha * (s + beta) if variant == "released" else alpha * s + beta


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    w = weights_of(layer)
    centre, distance = sets(w)
    binary = distance * signs(w, centre) + centre
    return add_bias(layer, correlate(layer, activations(x, variant, learned), binary))


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    centre, distance = sets(w)
    u, n = (w - centre) / distance, w.shape[1]
    binary = distance * signs(u) + centre
    to_a = poly((a - learned["beta"]) / learned["alpha"]) * binary.sum(0)
    to_binary = np.broadcast_to(activations(a, variant, learned).sum(0), w.shape)
    # Of binary = distance sign(u) + centre: by the sign, by the distance and by the centre.
    to_u = to_binary * distance * (1 - np.tanh(u / 10) ** 2)
    to_distance = (to_binary * signs(u)).sum(1, keepdims=True) - (to_u * u).sum(1, keepdims=True) / distance
    to_centre = to_binary.sum(1, keepdims=True) - to_u.sum(1, keepdims=True) / distance
    return to_a, to_u / distance + to_distance * u / n + to_centre / n


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_set_of_the_activations_is_learned(variant: str) -> None:
    layer: Any = trainers.binarize(nn.Linear(6, 3, bias=False), "adabin", variant).double().train()
    layer.alpha.data[:], layer.beta.data[:] = 0.75, 0.25
    x = torch.randn(5, 6, dtype=torch.float64)
    layer(x).sum().backward()
    v = (x.numpy() - 0.25) / 0.75
    centre, distance = sets(layer.weight.detach().numpy())
    weights = (distance * signs(layer.weight.detach().numpy(), centre) + centre).sum(0)
    centre_too = 0.25 if variant == "released" else 0  # which alpha scales as well
    to_alpha = ((signs(v) + centre_too - v * poly(v)) * weights).sum()
    to_beta = (((0.75 if variant == "released" else 1) - poly(v)) * weights).sum()
    np.testing.assert_allclose(layer.alpha.grad.item(), to_alpha, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.beta.grad.item(), to_beta, rtol=1e-9, atol=1e-12)


def test_a_channel_of_equal_weights_is_that_number() -> None:
    linear = nn.Linear(4, 2, bias=False)
    linear.weight.data[:] = torch.tensor([[0.5] * 4, [1.0, -1.0, 1.0, -1.0]])
    layer = trainers.binarize(linear, "adabin", keep=[]).train()
    x = torch.tensor([[3.0, -1.0, 2.0, 1.0]])
    y = layer(x)
    torch.testing.assert_close(y, torch.tensor([[1.0, 2.0]]))
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
