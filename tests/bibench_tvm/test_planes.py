"""Activations and weights of a few values, as sums of bits with scales: compiled whole, and exact."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_tvm import compile_model
from relay_passes import find_binary
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


def abc(w: Tensor, count: int = 3, per_channel: bool = True) -> Tensor:
    """ABC-Net's bases, sign(w - mean + u_i std), and the scales with which they add up to most of w."""
    rows = w.reshape(len(w) if per_channel else 1, -1)
    shifts = torch.linspace(-1, 1, count)
    centred = rows - rows.mean(1, keepdim=True)
    planes = torch.stack([bits(centred + u * rows.std(1, keepdim=True)) for u in shifts], -1)
    scales = torch.linalg.lstsq(planes, rows[..., None]).solution
    return (planes @ scales).reshape(w.shape)


def two_bits(w: Tensor) -> Tensor:
    """DoReFa's weights of 2 bits."""
    w = torch.tanh(w)
    return 2 * dorefa(w / (2 * w.abs().max()) + 0.5) - 1


def ternary(w: Tensor) -> Tensor:
    """TWN's: 0 below a threshold, a scale for each channel."""
    over = tuple(range(1, w.dim()))
    big = w.abs() > 0.7 * w.abs().mean(over, keepdim=True)
    return torch.sign(w) * big * (w.abs() * big).sum(over, keepdim=True) / big.sum(over, keepdim=True)


def three_signs(x: Tensor) -> Tensor:
    return torch.sign(torch.round(x))


Function = Callable[[Tensor], Tensor]
THREE_BASES = SPELLINGS["ABC-Net, three bases"][0]
# Layer, what its weights and its activations become, and how many planes of bits each are.
SUMS: dict[str, tuple[Callable[[], Any], Function, Function, int, int]] = {
    "abc": (lambda: nn.Conv2d(16, 16, 3, padding=1), abc, bits, 3, 1),
    "of_the_layer": (lambda: nn.Conv2d(16, 16, 3, padding=1), lambda w: abc(w, 2, False), bits, 2, 1),
    "both": (lambda: nn.Conv2d(16, 12, 3, 2, 1), abc, THREE_BASES, 3, 3),
    "grouped": (lambda: nn.Conv2d(16, 8, 3, padding=(0, 2), groups=2), lambda w: abc(w, 2), dorefa, 2, 2),
    "depthwise": (lambda: nn.Conv2d(16, 16, 3, groups=16), ternary, bits, 2, 1),
    "dorefa": (lambda: nn.Conv2d(16, 20, 1), two_bits, dorefa, 2, 2),
    "shifted": (lambda: nn.Conv2d(16, 9, 3, padding=1), lambda w: abc(w, 2) + 0.1, dorefa, 2, 2),
    "other_levels": (lambda: nn.Conv2d(16, 9, 3, padding=1), abc, lambda x: (x > 0) * 0.5 + 0.2, 3, 1),
    "three_values": (lambda: nn.Conv2d(16, 9, 3), ternary, three_signs, 2, 2),
    "linear": (lambda: nn.Linear(9, 30), two_bits, lambda x: dorefa(x.flatten(2)), 2, 2),
}


class Sums(nn.Module):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.stem, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        for name in names:
            layer = SUMS[name][0]()
            layer.weight.data = SUMS[name][1](layer.weight.data)
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.norm(self.stem(x))
        return [self.get_submodule(name)(SUMS[name][2](x)) for name in self.names]


def compiled_sums(names: list[str], out: Path, target: str = "host") -> Mapping[str, Any]:
    torch.manual_seed(1)
    x = torch.randn(1, 3, 5, 5)
    return compile_model(Sums(names).eval(), x, target=target, out=out, verify=2).manifest


def test_weights_that_are_sums_of_signs(tmp_path: Path) -> None:
    """As published by ABC-Net, DoReFa with two bits and TWN, in layers of any kind."""
    manifest = compiled_sums(list(SUMS), tmp_path)
    layers = {layer["name"]: layer for layer in manifest["layers"][1:]}
    assert not {name: layer["reason"] for name, layer in layers.items() if not layer["binarized"]}
    for name, (make, _, _, of_weights, of_input) in SUMS.items():
        notes, weight = layers[name]["notes"], make().weight
        assert f"in an output channel, in {of_weights} planes of bits" in notes, (name, notes)
        of_channel = weight[0, 0].numel() * -(-weight.shape[1] // 8)
        assert layers[name]["weight_bytes"] == len(weight) * of_channel * of_weights * of_input, name
    verification = manifest["verification"]
    assert verification["passed"] and verification["integers_exact"], verification["reason"]


def test_so_are_sums_on_an_emulated_processor(tmp_path: Path) -> None:
    manifest = compiled_sums(["abc", "grouped"], tmp_path, "rpi4b")
    assert [layer["binarized"] for layer in manifest["layers"]] == [False, True, True]
    assert manifest["verification"]["passed"] and manifest["verification"]["integers_exact"]


def a_sign_of_a_plane(patch: pytest.MonkeyPatch) -> None:
    honest = find_binary._signs

    def broken(weights: Any) -> Any:
        signs = honest(weights)
        signs[0, 0] *= -1
        return signs

    patch.setattr(find_binary, "_signs", broken)


def a_plane_too_heavy(patch: pytest.MonkeyPatch) -> None:
    honest = find_binary.weight_planes

    def broken(weights: Any) -> Any:
        found = honest(weights)
        first, *others = found.planes
        return replace(found, planes=(replace(first, alpha=first.alpha * 1.001), *others))

    patch.setattr(find_binary, "weight_planes", broken)


def a_plane_left_out(patch: pytest.MonkeyPatch) -> None:
    honest = find_binary.weight_planes
    patch.setattr(find_binary, "weight_planes", lambda w: replace(honest(w), planes=honest(w).planes[:-1]))


@pytest.mark.parametrize("fault", [a_sign_of_a_plane, a_plane_too_heavy, a_plane_left_out])
def test_a_fault_in_weights_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert not compiled_sums(["abc"], tmp_path)["verification"]["passed"]
