"""What `set_progress` moves."""

import math
from typing import Any

import pytest
from torch import nn

import trainers


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_recu(variant: str) -> None:
    layer: Any = trainers.binarize(nn.Linear(8, 4), "recu", variant)
    taus = []
    for progress in (0.0, 0.5, 1.0):
        trainers.set_progress(layer, progress)
        taus.append(layer.tau.item())
    middle = 0.85 + 0.14 * (math.exp(0.5) - 1) / (math.e - 1)
    assert taus == pytest.approx([0.85, middle, 0.99])
    assert {"tau", "limits"} <= set(layer.state_dict())


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_recu_in_evaluation_follows_its_weights_and_tau(variant: str) -> None:
    layer: Any = trainers.binarize(nn.Linear(8, 4), "recu", variant).eval()
    before = layer.limits.clone()
    trainers.set_progress(layer, 1.0)
    assert layer.limits[1] > before[1]
    other: Any = trainers.binarize(nn.Linear(8, 4), "recu", variant).eval()
    other.load_state_dict(layer.state_dict())
    assert other.limits.tolist() == layer.limits.tolist()
    nn.init.normal_(layer.weight)
    assert layer.train().eval().limits.tolist() != other.limits.tolist()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_fda(variant: str) -> None:
    layer: Any = trainers.binarize(nn.Linear(8, 4), "fda", variant)
    seen = []
    for progress in (0.0, 0.5, 1.0):
        trainers.set_progress(layer, progress)
        seen.append((layer.terms, pytest.approx(layer.kappa)))
    assert seen == [(9, 0.1), (13, 0.05), (18, 0.0)]


def test_released_fda_counts_epochs_for_its_noise() -> None:
    layer: Any = trainers.binarize(nn.Linear(8, 4), "fda", "released")
    for epoch in range(4):
        for progress in (epoch / 4, (epoch + 0.9) / 4):  # its first and last steps
            trainers.set_progress(layer, progress, epochs=4)
            assert layer.kappa == pytest.approx(0.05 * (1 + math.cos((epoch + 1) * math.pi / 4)))
            assert layer.schedule.tolist() == pytest.approx([layer.terms + 1, layer.kappa], abs=1e-7)
    paper: Any = trainers.binarize(nn.Linear(8, 4), "fda")
    trainers.set_progress(paper, 0.5, epochs=4)
    assert paper.kappa == pytest.approx(0.05)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_a_progress_outside_the_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        trainers.set_progress(nn.Linear(1, 1), progress)
