"""Layers whose weight is computed from other parameters are binarized with the weight that they have."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import trainers
from trainers.operator import BinaryLayer


class Doubled(nn.Module):
    """A parametrization of somebody's own."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


WRAPS: dict[str, Any] = {
    "weight norm": nn.utils.weight_norm,
    "spectral norm": nn.utils.spectral_norm,
    "parametrization WeightNorm": parametrizations.weight_norm,
    "parametrization SpectralNorm": parametrizations.spectral_norm,
    "parametrization Doubled": lambda m: nn.utils.parametrize.register_parametrization(
        m, "weight", Doubled()
    ),
    "pruning": lambda m: prune.l1_unstructured(prune.random_unstructured(m, "weight", 0.2), "weight", 0.5),
}


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(4, 4, 3), lambda: nn.Linear(4, 4)])
@pytest.mark.parametrize("what", WRAPS)
def test_the_weight_is_a_parameter_again_and_learns(what: str, make: Any) -> None:
    torch.manual_seed(0)
    layer = make()
    original = layer.weight.detach().clone()
    model = nn.Sequential(make(), WRAPS[what](layer), make()).eval()
    model(
        torch.randn(1, 4, *[9] * (layer.weight.dim() - 2))
    )  # spectral norm computes the weight when it is called
    weight = original if what == "pruning" else model[1].weight.detach().clone()
    with pytest.warns(
        UserWarning, match=rf"Folded into the weights that are binarized: {what} of weight.*\(1\)"
    ):
        model = trainers.binarize(model, "bnn", keep=["0", "2"]).train()
    binary: Any = model[1]  # type: ignore[index]
    assert isinstance(binary, BinaryLayer)
    torch.testing.assert_close(binary.weight, weight)
    assert sorted(name for name, _ in binary.named_parameters()) == ["bias", "weight"]
    assert "_orig" not in str(list(model.state_dict()))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 4, *[9] * (layer.weight.dim() - 2))).square().sum().backward()
        optimizer.step()
    assert not torch.allclose(binary.weight, weight)


def test_one_that_stays_float_keeps_its_parametrization() -> None:
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4), nn.Linear(4, 2))
    trainers.binarize(model, "bnn", keep=["0", "2"])
    assert "weight_g" in dict(model[0].named_parameters())


def test_a_weight_that_a_hook_computes_is_left_and_said() -> None:
    layer = nn.Linear(4, 4)
    layer.register_parameter("part", nn.Parameter(layer._parameters.pop("weight").detach() / 2))  # type: ignore[union-attr]
    layer.register_forward_pre_hook(lambda module, args: setattr(module, "weight", 2 * module.part))
    with pytest.warns(UserWarning, match="0: its weight is not a parameter of its own"):
        model = trainers.binarize(nn.Sequential(layer, nn.Linear(4, 4), nn.Linear(4, 2)), "bnn")
    assert model[0] is layer  # type: ignore[index]
    assert model(torch.randn(2, 4)).shape == (2, 2)


def test_hooks_go_over_to_the_binary_layer() -> None:
    model, seen = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), []
    model[0].register_forward_hook(lambda module, args, result: seen.append(type(module).__name__))
    model[0].register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    trainers.binarize(model, "bnn")(torch.randn(2, 4))
    assert seen == [{}, "BNN"]
