"""ReCU: o = (sign(a) * sign(recu(v))) . alpha, eqs 25 to 29, of centred and standardised weights v."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from tests.trainers.formulas import (
    Learned,
    mean_of_channels,
    per_channel,
    poly,
    products,
    signs,
    weights_of,
)

NEEDS = 2  # a channel of one weight has no deviation to standardise by
NAN_STAYS = False
DIFFERS: tuple[str, ...] = ()
TAU = 0.85


def deviation(w: np.ndarray) -> np.ndarray:
    over = tuple(range(1, w.ndim))
    return np.sqrt(w.var(over, keepdims=True, ddof=1) + 1e-5)


def standardised(w: np.ndarray, variant: str) -> np.ndarray:
    centred = w - w.mean(tuple(range(1, w.ndim)), keepdims=True)
    return centred / deviation(w) * (1 if variant == "paper" else 2 * math.sqrt(2))


def quantiles(v: np.ndarray, variant: str, tau: float = TAU) -> tuple[Any, Any]:
    if variant == "paper":
        return np.quantile(v, 1 - tau), np.quantile(v, tau)
    high = -np.abs(v).mean() * math.log(2 - 2 * tau)
    return -high, high


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    v = standardised(weights_of(layer), variant)
    v = np.clip(v, *quantiles(v, variant))
    alpha = per_channel(layer, mean_of_channels(v)) if variant == "paper" else learned["alpha"]
    y = products(layer, signs(x), signs(v)) * alpha
    if layer.bias is None:
        return y
    bias = per_channel(layer, layer.bias.detach().double().numpy())
    return y + (bias * alpha if variant == "released" and not isinstance(layer, nn.Linear) else bias)


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    v = standardised(w, variant)
    low, high = quantiles(v, variant)
    alpha = mean_of_channels(np.clip(v, low, high)) if variant == "paper" else learned["alpha"]
    # d o / d v is alpha sign(a) between the quantiles; then the chain rule of v = (w - mean) / std
    to_v = alpha[:, None] * signs(a).sum(0) * ((v >= low) & (v <= high))
    spread, more = (1 if variant == "paper" else 2 * math.sqrt(2)), w.shape[1] - 1
    unit = v / spread
    to_w = to_v - to_v.mean(1, keepdims=True) - unit * (to_v * unit).sum(1, keepdims=True) / more
    to_signs = alpha @ signs(v)
    if variant == "paper":
        return poly(a) * to_signs, to_w * spread / deviation(w)
    std = np.sqrt(a.var(1, keepdims=True, ddof=1) + 1e-5)
    scaled, centred = a / std, a - a.mean(1, keepdims=True)
    to_scaled = poly(scaled) * to_signs
    along = (to_scaled * a).sum(1, keepdims=True) / std**3 / (a.shape[1] - 1)
    return to_scaled / std - centred * along, to_w * spread / deviation(w)


def test_the_learned_scale_of_the_released_variant_learns() -> None:
    layer = trainers.binarize(nn.Linear(4, 1), "recu", "released").train()
    layer(torch.randn(3, 4)).sum().backward()
    assert layer.get_parameter("alpha").grad is not None


def test_channels_of_equal_weights_do_not_make_it_nan() -> None:
    linear = nn.Linear(3, 2)
    nn.init.ones_(linear.weight)
    trainers.binarize(linear, "recu").train()(torch.randn(2, 3)).sum().backward()
    assert linear.weight.grad is not None
    assert torch.isfinite(linear.weight.grad).all()


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize(("start", "end"), [(0.85, 0.99), (0.6, 0.7)])
def test_tau_grows(variant: str, start: float, end: float) -> None:
    hyperparameters = {"tau_start": start, "tau_end": end}
    layer: Any = trainers.binarize(nn.Linear(8, 4), "recu", variant, hyperparameters=hyperparameters).eval()
    v = standardised(weights_of(layer), variant)
    for progress, share in ((0.0, 0.0), (0.5, (math.exp(0.5) - 1) / (math.e - 1)), (1.0, 1.0)):
        trainers.set_progress(layer, progress)
        tau = start + (end - start) * share
        assert layer.tau.item() == pytest.approx(tau)
        assert layer.limits.tolist() == pytest.approx(quantiles(v, variant, tau), abs=1e-5)
    assert {"tau", "limits"} <= set(layer.state_dict())


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_in_evaluation_it_follows_its_weights_and_tau(variant: str) -> None:
    layer: Any = trainers.binarize(nn.Linear(8, 4), "recu", variant).eval()
    before = layer.limits.clone()
    trainers.set_progress(layer, 1.0)
    assert layer.limits[1] > before[1]
    other: Any = trainers.binarize(nn.Linear(8, 4), "recu", variant).eval()
    other.load_state_dict(layer.state_dict())
    assert other.limits.tolist() == layer.limits.tolist()
    nn.init.normal_(layer.weight)
    assert layer.train().eval().limits.tolist() != other.limits.tolist()
