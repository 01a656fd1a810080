"""Activations of a few values, as sums of bits with scales of their own: compiled whole, and exact."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_tvm import compile_model
from relay_passes.ir import binary_sums, planes


def bits(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def dorefa(x: Tensor, levels: int = 3) -> Tensor:
    return torch.round(torch.clamp(x, 0, 1) * levels) / levels


# Activations -> how many planes of bits they are.
SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "DoReFa, 2 bits": (dorefa, 2),
    "DoReFa, 3 bits": (lambda x: dorefa(x, 7), 3),
    "PACT, 2 bits": (lambda x: torch.round(x.clamp(0, 1.7) * 3 / 1.7) * (1.7 / 3), 2),
    "LSQ, 2 bits with a sign": (lambda x: torch.round(torch.clamp(x / 0.4, -2, 1)) * 0.4, 2),
    "straight through": (lambda x: x + (dorefa(x) - x).detach(), 2),
    "DoReFa after a maximum": (lambda x: F.max_pool2d(dorefa(x), 3, 1, 1), 2),
    "three values": (lambda x: (x >= -0.3).float() * 0.5 + (x >= 0.4).float() * 2, 2),
    "ABC-Net, shifted": (lambda x: 0.7 * bits(x + 0.4) + 0.2 * bits(x - 0.3), 2),
    "ABC-Net, three bases": (lambda x: 0.7 * bits(x + 0.4) + 0.2 * bits(x) + 0.4 * bits(x - 0.5), 3),
    "of two tensors": (lambda x: 0.7 * bits(x) + 0.2 * bits(x.roll(1, 1) - 0.3), 2),
    "a difference": (lambda x: (x >= 0).float() * 0.6 - (x.flip(1) >= 0.2).float(), 2),
    "a residual of bits": (lambda x: bits(x) + bits(x.flip(3)), 2),
}


class Network(nn.Module):
    """For each spelling a padded layer and a strided one of three groups, with weights alpha s + beta."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.stem, self.norm = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12)
        self.norm.running_mean.normal_(0, 0.3)
        self.padded = nn.ModuleList(binary(nn.Conv2d(12, 12, 3, padding=1)) for _ in names)
        self.grouped = nn.ModuleList(binary(nn.Conv2d(12, 9, 3, 2, groups=3), 0.1) for _ in names)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.norm(self.stem(x))
        found = []
        for name, padded, grouped in zip(self.names, self.padded, self.grouped, strict=True):
            values = SPELLINGS[name][0](x)
            found += [padded(values), grouped(values)]
        return found


def binary(layer: Any, beta: float = 0.0) -> Any:
    """Weights alpha s, a scale for each channel, or alpha s + beta."""
    alpha = layer.weight.data.abs().mean((1, 2, 3), keepdim=True)
    layer.weight.data = torch.where(layer.weight.data >= 0, alpha, -alpha) + beta
    return layer


def compiled(names: list[str], out: Path, target: str = "host") -> Mapping[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 9)
    manifest = compile_model(Network(names).eval(), x, target=target, out=out, verify=2).manifest
    assert not [layer["reason"] for layer in manifest["layers"][1:] if not layer["binarized"]]
    return manifest


def test_a_few_values_are_planes_of_bits(tmp_path: Path) -> None:
    manifest = compiled(list(SPELLINGS), tmp_path)
    layers = {layer["name"]: layer for layer in manifest["layers"]}
    for i, (name, (_, count)) in enumerate(SPELLINGS.items()):
        padded, grouped = layers[f"padded.{i}"], layers[f"grouped.{i}"]
        assert f"in {count} planes of bits" in padded["notes"] and padded["notes"] == grouped["notes"], name
        assert (padded["weight_bytes"], grouped["weight_bytes"]) == (216 * count, 81 * count), name
    verification = manifest["verification"]
    assert verification["passed"] and verification["integers_exact"], verification["reason"]


def test_so_they_are_on_an_emulated_processor(tmp_path: Path) -> None:
    verification = compiled(["DoReFa, 2 bits", "ABC-Net, three bases"], tmp_path, "rpi4b")["verification"]
    assert verification["passed"] and verification["integers_exact"], verification["reason"]


def one_step_off(patch: pytest.MonkeyPatch) -> None:
    honest = planes._among
    patch.setattr(planes, "_among", lambda b, values, *rest: honest(b, [v + 0.2 for v in values], *rest))


def a_part_too_heavy(patch: pytest.MonkeyPatch) -> None:
    honest = binary_sums.BinarySums.shifted

    def broken(self: Any, builder: Any, x: Any, values: Any, *rest: Any) -> Any:
        return honest(self, builder, x, replace(values, high=values.high * 1.1), *rest)

    patch.setattr(binary_sums.BinarySums, "shifted", broken)


@pytest.mark.parametrize("fault", [one_step_off, a_part_too_heavy])
def test_a_fault_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert not compiled(["DoReFa, 2 bits"], tmp_path)["verification"]["passed"]


@pytest.mark.parametrize(
    ("values", "scales"),
    [
        ((0, 1), (0.5,)),
        ((-1, 0, 1), (0.5, 0.5)),
        ((0, 1, 2, 3), (1, 0.5)),
        ((-3, -1, 2, 4), (2.5, 1)),
        ((0, 1, 2, 3, 4, 5, 6, 7), (2, 1, 0.5)),
        ((0, 1, 3, 7), (3.5, 3, 2)),
    ],
)
def test_values_are_sums_of_the_fewest_scales(values: tuple[float, ...], scales: tuple[float, ...]) -> None:
    found = planes.subset_sums(values)
    assert found is not None and found[1] == scales
    for value in values:
        signs = planes.codes_of(value, *found)
        assert found[0] + sum(s * c for s, c in zip(signs, scales, strict=True)) == value


def test_what_is_no_sum_of_three_scales() -> None:
    assert planes.subset_sums((0, 1, 3, 7, 20)) is None
