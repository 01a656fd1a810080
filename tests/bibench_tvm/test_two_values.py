"""Activations and weights of any two values, as networks in PyTorch write them: in bits, and exact."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainers
from bibench_tvm import compile_model
from bibench_tvm.compiling.operands import two_sides
from relay_passes.ir import binary_sums, notes


class Values(nn.Module):
    """A learned distance and a learned centre, as people spell them."""

    def __init__(
        self, spelled: Callable[[Tensor, Tensor, Tensor], Tensor], alpha: float, beta: float
    ) -> None:
        super().__init__()
        self.spelled = spelled
        self.alpha, self.beta = (nn.Parameter(torch.tensor(value)) for value in (alpha, beta))

    def forward(self, x: Tensor) -> Tensor:
        return self.spelled(x, self.alpha, self.beta)


def through(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """As AdaBin's authors have it: the sign of 0 is 0, and the surrogate is taken away and added again."""
    v = (x - beta) / alpha
    inside = torch.where(v < 0, v * v + 2 * v, 2 * v - v * v)
    surrogate = torch.where(v < -1, -1.0, torch.where(v < 1, inside, 1.0))
    return alpha * (torch.sign(v).detach() - surrogate.detach() + surrogate + beta)


SPELLINGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "where": lambda x, alpha, beta: torch.where(x >= beta, beta + alpha, beta - alpha),
    "alpha s + beta": lambda x, alpha, beta: torch.where(x >= beta, 1.0, -1.0) * alpha + beta,
    "(s + beta) alpha": lambda x, alpha, beta: (torch.where(x > 0, 1.0, -1.0) + beta) * alpha,
    "a truth": lambda x, alpha, beta: (x >= beta).float() * (2 * alpha) + (beta - alpha),
    "sign": lambda x, alpha, beta: torch.sign(x - beta) * alpha + beta,
    "straight through": through,
    "0 and alpha": lambda x, alpha, beta: (x >= beta).float() * alpha,
    "-alpha, 0 and alpha": lambda x, alpha, beta: torch.sign(torch.round(x - beta)) * alpha,
}


def two_weights(layer: Any, transposed: bool = False) -> Any:
    over = (0, *range(2, layer.weight.dim())) if transposed else tuple(range(1, layer.weight.dim()))
    w = layer.weight.data
    centre = w.mean(over, keepdim=True)
    layer.weight.data = torch.where(w >= centre, 1.0, -1.0) * (w - centre).std(over, keepdim=True) + centre
    return layer


def network(make: Callable[[], nn.Module], *layers: Any) -> nn.Module:
    """A float convolution, then layers of two values, each behind a batch norm."""
    found: list[nn.Module] = [nn.Conv2d(3, 12, 3)]
    for layer in layers:
        norm = nn.BatchNorm2d(12)
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        found += [norm, make(), layer]
    return nn.Sequential(*found, nn.Flatten(1)).eval()


def compiled(model: nn.Module, out: Path) -> dict[str, Any]:
    artifact = compile_model(model, torch.randn(1, 3, 8, 9), target="host", out=out, verify=2)
    layers = {layer["name"]: layer for layer in artifact.manifest["layers"]}
    layers.pop("0")
    assert all(layer["binarized"] for layer in layers.values()), layers
    return artifact.manifest["verification"] | {"of layers": layers}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_in_padded_grouped_and_transposed_layers(spelling: str, tmp_path: Path) -> None:
    torch.manual_seed(len(spelling))
    layers = [
        two_weights(nn.Conv2d(12, 12, 3, padding=1)),
        two_weights(nn.Conv2d(12, 12, 3, 2, padding=(0, 2), groups=3)),
        two_weights(nn.ConvTranspose2d(12, 12, 3, 2, padding=1), transposed=True),
    ]
    found = compiled(network(lambda: Values(SPELLINGS[spelling], 0.7, 0.2), *layers), tmp_path)
    assert found["passed"], found["reason"]
    noted = spelling in ("sign", "straight through")
    assert all((notes.SIGN_NOTE in layer["notes"]) == noted for layer in found["of layers"].values())


def broken_table(patch: pytest.MonkeyPatch) -> None:
    honest = binary_sums.inside_sums

    def broken(*args: Any) -> Any:
        table, *classes = honest(*args)
        table[0, 0, 0] += 1
        return table, *classes

    patch.setattr(binary_sums, "inside_sums", broken)


def sums_of_other_weights(patch: pytest.MonkeyPatch) -> None:
    honest = binary_sums.BinarySums.dot

    def broken(
        self: Any, builder: Any, x: Any, values: Any, layer: Any, signs: Any, *args: Any, **more: Any
    ) -> Any:
        if more.get("of_input"):
            signs[..., 0] = -1
        return honest(self, builder, x, values, layer, signs, *args, **more)

    patch.setattr(binary_sums.BinarySums, "dot", broken)


def other_values(patch: pytest.MonkeyPatch) -> None:
    honest = binary_sums.step_of
    patch.setattr(binary_sums, "step_of", lambda values: honest(values) * binary_sums.np.float32(1.01))


@pytest.mark.parametrize("fault", [broken_table, sums_of_other_weights, other_values])
def test_a_fault_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    fault(monkeypatch)
    layer = two_weights(nn.Conv2d(12, 12, 3, padding=1))
    model = network(lambda: Values(SPELLINGS["where"], 0.7, 0.2), layer)
    assert not compiled(model, tmp_path)["passed"]


def test_the_signs_of_the_source_are_those_of_its_values() -> None:
    """Of values that are both positive, and of weights whose two values have one sign."""
    weights = torch.tensor([[0.5, 0.25, 0.5], [-1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]).numpy()
    signs = two_sides(weights)
    assert signs.tolist() == [[1, -1, 1], [-1, 1, 1], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_trained_adabin_compiles_whole(variant: str, tmp_path: Path) -> None:
    """Its sets moved off 1 and 0, and one distance below 0."""
    torch.manual_seed(3)
    model = network(nn.Identity, nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, groups=12))
    model = trainers.binarize(model, "adabin", variant, keep=["0"])
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.data[:] = -0.6 if name.startswith("3") else 0.8
        if name.endswith("beta"):
            parameter.data[:] = 0.3
    found = compiled(model.eval(), tmp_path)
    assert found["passed"], found["reason"]
    assert not any(layer["notes"] for layer in found["of layers"].values())
