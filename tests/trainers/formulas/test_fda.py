"""FDA: o = (rsign(a) * sign(w)) . alpha with the gradient of the Fourier series and of the noise, eqs 30 to
32."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from tests.trainers.formulas import (
    Learned,
    add_bias,
    mean_of_channels,
    per_channel,
    products,
    signs,
    weights_of,
)

NEEDS = 1
NAN_STAYS = False
DIFFERS = ("released",)  # which adds the noise to the values
OMEGA, N, KAPPA = 0.1, 9, 0.1


def series(x: np.ndarray, variant: str, n: int = N, omega: float = OMEGA) -> np.ndarray:
    total = 4 * omega / math.pi * sum(np.cos((2 * i + 1) * omega * x) for i in range(n + 1))
    return total * (np.abs(x) <= 1) if variant == "released" else total


def rsign(x: np.ndarray, variant: str, learned: Learned) -> np.ndarray:
    return signs(x, learned["threshold"], -1) if variant == "paper" else signs(x)


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    w = weights_of(layer)
    y = products(layer, rsign(x, variant, learned), signs(w))
    return add_bias(layer, y * per_channel(layer, mean_of_channels(w)))


def noise(t: np.ndarray, kind: str, learned: Learned) -> np.ndarray:
    first, second = (learned[f"{kind}_noise.fc{i}.weight"] for i in (1, 2))
    return np.maximum(t @ first.T, 0) @ second.T + 0.1 * np.sin(t)


def through_noise(to_noise: np.ndarray, t: np.ndarray, kind: str, learned: Learned) -> np.ndarray:
    first, second = (learned[f"{kind}_noise.fc{i}.weight"] for i in (1, 2))
    return ((to_noise @ second) * (t @ first.T > 0)) @ first + 0.1 * np.cos(t) * to_noise


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    t = a - learned["threshold"] if variant == "paper" else a
    alpha = mean_of_channels(w)
    of_a, of_w = rsign(a, variant, learned), signs(w)
    if variant == "released":  # the operands of the product have the noise in their values
        of_a, of_w = of_a + KAPPA * noise(t, "input", learned), of_w + KAPPA * noise(w, "weight", learned)
    to_a = np.broadcast_to(alpha @ of_w, a.shape)
    to_w = alpha[:, None] * of_a.sum(0)
    return (
        to_a * series(t, variant) + KAPPA * through_noise(to_a, t, "input", learned),
        to_w * series(w, variant) + KAPPA * through_noise(to_w, w, "weight", learned),
    )


@pytest.mark.parametrize(("progress", "n"), [(0.0, 2), (0.5, 4), (1.0, 6)])
def test_hyperparameters_are_those_of_the_series(progress: float, n: int) -> None:
    numbers = {"omega": 0.25, "terms_start": 2, "terms_end": 6, "noise": 0.5}
    layer: Any = trainers.binarize(nn.Linear(3, 1).double(), "fda", hyperparameters=numbers)
    trainers.set_progress(layer, progress)
    assert layer.kappa == pytest.approx(0.25 * (1 + math.cos(math.pi * progress)))
    x = np.array([0.0, 0.5, -3.0])
    np.testing.assert_allclose(layer.fourier(torch.from_numpy(x)), series(x, "paper", n, 0.25), rtol=1e-12)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_n_and_kappa_follow_the_progress(variant: str) -> None:
    layer: Any = trainers.binarize(nn.Linear(8, 4), "fda", variant)
    seen = []
    for progress in (0.0, 0.5, 1.0):
        trainers.set_progress(layer, progress)
        seen.append((layer.terms, pytest.approx(layer.kappa)))
    assert seen == [(9, 0.1), (13, 0.05), (18, 0.0)]


def test_released_it_counts_epochs_for_its_noise() -> None:
    layer: Any = trainers.binarize(nn.Linear(8, 4), "fda", "released")
    for epoch in range(4):
        for progress in (epoch / 4, (epoch + 0.9) / 4):  # its first and last steps
            trainers.set_progress(layer, progress, epochs=4)
            assert layer.kappa == pytest.approx(0.05 * (1 + math.cos((epoch + 1) * math.pi / 4)))
            assert layer.schedule.tolist() == pytest.approx([layer.terms + 1, layer.kappa], abs=1e-7)
    paper: Any = trainers.binarize(nn.Linear(8, 4), "fda")
    trainers.set_progress(paper, 0.5, epochs=4)
    assert paper.kappa == pytest.approx(0.05)


def test_the_noise_learns_by_its_share() -> None:
    layer: Any = trainers.binarize(nn.Linear(1, 1, bias=False).double(), "fda").train()
    nn.init.constant_(layer.weight, -0.5)
    trainers.set_progress(layer, 0.5)  # kappa = 0.05 (1 + cos(pi / 2)) = 0.05
    for module in (layer.input_noise, layer.weight_noise):
        for parameter, value in zip(module.parameters(), (3.0, 2.0), strict=True):  # fc1, fc2; no biases
            nn.init.constant_(parameter, value)
    layer(torch.tensor([[0.25]], dtype=torch.double)).backward()
    assert layer.input_noise.fc1.weight.grad.item() == pytest.approx(-0.5 * 0.05 * 2 * 0.25)
    assert layer.input_noise.fc2.weight.grad.item() == pytest.approx(-0.5 * 0.05 * 3 * 0.25)


def test_released_it_adds_noise_in_training_until_its_end() -> None:
    x = torch.randn(2, 4, 6, 6)
    layer = trainers.binarize(nn.Conv2d(4, 6, 3, padding=1), "fda", "released")
    assert not torch.allclose(layer.train()(x), layer.eval()(x))
    trainers.set_progress(layer, 1.0)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x))
