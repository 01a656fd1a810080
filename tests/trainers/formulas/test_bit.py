"""BiT: o = (a * sign(w)) m with a = alpha sign(v), or alpha round(clip(v, 0, 1)) after a ReLU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from bibench_tvm import compile_model
from tests.trainers.formulas import Learned, add_bias, clip, correlate, per_channel, signs, weights_of

NEEDS = 2
NAN_STAYS = False
DIFFERS: tuple[str, ...] = ()


def centred(w: np.ndarray, variant: str) -> np.ndarray:
    return w - w.mean() if variant == "released" else w


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    w = weights_of(layer)
    beta = learned["beta"].reshape(-1)
    a = learned["alpha"] * signs(x - (per_channel(layer, beta) if variant == "released" else beta))
    return add_bias(layer, correlate(layer, a, signs(centred(w, variant))) * np.abs(w).mean())


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    alpha, beta = learned["alpha"], learned["beta"].reshape(-1)
    m = np.abs(w).mean()
    to_a = clip((a - beta) / alpha, variant) * signs(centred(w, variant)).sum(0) * m
    to_w = np.broadcast_to((alpha * signs(a - beta)).sum(0), w.shape)
    return to_a, to_w if variant == "released" else to_w * m


def to_alpha_from_zero(x: float, alpha: float, beta: float) -> float:
    """As the paper has it, case by case."""
    if x < beta:
        return 0
    if x < beta + alpha / 2:
        return (beta - x) / alpha
    if x < beta + alpha:
        return 1 - (x - beta) / alpha
    return 1


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_scale_and_threshold_are_learned(variant: str, rectified: bool) -> None:
    torch.manual_seed(0)
    layer: Any = trainers.binarize(nn.Linear(6, 3, bias=False), "bit", variant).double().train()
    if rectified:
        layer.takes_rectified()
    alpha, beta = 0.75, 0.25
    layer.alpha.data[:], layer.beta.data[:] = alpha, beta
    x = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)
    x.data[0] = torch.tensor([beta, beta + alpha, beta + alpha / 2, beta - alpha, 5.0, -5.0])
    layer(x).sum().backward()
    a, w = x.detach().numpy(), layer.weight.detach().numpy()
    to_each = np.abs(w).mean() * signs(centred(w, variant)).sum(0)
    if rectified:
        by_alpha = np.vectorize(to_alpha_from_zero)(a, alpha, beta)
        by_alpha[(a == beta + alpha)] = 0 if variant == "released" else 1
        within = (a >= beta) & ((a < beta + alpha) | ((a == beta + alpha) & (variant == "released")))
        # Halfway up it is still 0, as numbers are rounded to even ones.
        by_alpha[a == beta + alpha / 2] -= 1
    else:
        by_alpha, within = signs(a - beta), clip((a - beta) / alpha, variant)
    root = np.sqrt(a.size) if variant == "released" else 1
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), within * to_each, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        layer.alpha.grad.item(), (by_alpha * to_each).sum() / root, rtol=1e-9, atol=1e-12
    )
    of_beta = -(within * to_each).sum(0)
    found = layer.beta.grad.numpy().reshape(-1)
    expected = of_beta if variant == "released" else [of_beta.sum()]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_after_a_relu_it_has_0_and_alpha_and_compiles_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 4)
    model = trainers.binarize(nn.Sequential(*layers), "bit", keep=["0"])
    assert isinstance(model[1], nn.ReLU) and model[2].is_from_zero and not model[4].is_from_zero
    model[2].alpha.data[:], model[2].beta.data[:], model[4].beta.data[:] = 0.5, 0.125, 0.1
    a = model[2].input_values(model[2].sign_input(torch.tensor([-1.0, 0.25, 0.375, 0.5, 9.0])))
    torch.testing.assert_close(a, torch.tensor([0, 0, 0, 0.5, 0.5]))
    again = trainers.binarize(nn.Sequential(*layers), "bit", keep=["0"])
    again[2].is_from_zero = False
    again.load_state_dict(model.state_dict())
    assert again[2].is_from_zero
    manifest = compile_model(model.eval(), torch.randn(2, 9), out=tmp_path, verify=2).manifest
    assert [layer["binarized"] for layer in manifest["layers"]] == [False, True, True]
    assert manifest["verification"]["passed"], manifest["verification"]["reason"]
