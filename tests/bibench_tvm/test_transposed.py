"""Transposed convolutions of bits: ordinary ones, side by side, and exact."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from tvm import relax

import trainers
from bibench_tvm import compile_model
from relay_passes import find_binary, pipeline
from relay_passes.ir.rewrite import bindings, constant_value, is_call, rewrite

BITS: dict[str, Callable[[Tensor], Tensor]] = {
    "signs": lambda x: torch.where(x >= 0, 1.0, -1.0),
    "0 and 1": lambda x: (x > 0).float() * 0.5,
    "three values": torch.sign,
}


class Side(nn.Module):
    """Layers that read the same bits: a list of what each computes."""

    def __init__(self, bits: Callable[[Tensor], Tensor], layers: list[nn.Module]) -> None:
        super().__init__()
        self.bits, self.layers = bits, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(self.bits(x)) for layer in self.layers]


def with_signs(layer: Any) -> Any:
    """Its weights become +-alpha for each output channel."""
    axis = [1, 0, *range(2, layer.weight.dim())]
    alpha = torch.rand(layer.out_channels).reshape(-1, *(1,) * (layer.weight.dim() - 1)).permute(axis)
    layer.weight.data = torch.where(layer.weight >= 0, 1.0, -1.0) * (alpha if layer.groups == 1 else 0.5)
    return layer


def random_layers(seed: int, count: int) -> list[nn.Module]:
    """Of 9 channels that give (1, 9, 4, 3) some output."""
    rng = np.random.default_rng(seed)
    found: list[nn.Module] = []
    while len(found) < count:
        stride, kernel, padding = (tuple(map(int, rng.integers(low, 5, 2))) for low in (1, 1, 0))
        more = tuple(int(rng.integers(0, s)) for s in stride)
        size = [
            (n - 1) * s - 2 * p + k + m
            for n, s, p, k, m in zip((4, 3), stride, padding, kernel, more, strict=True)
        ]
        if min(size) > 0:
            found.append(with_signs(nn.ConvTranspose2d(9, 5, kernel, stride, padding, more)))
    return found


def check(model: nn.Module, x: Tensor, out: Path) -> list[dict[str, Any]]:
    """The layers of the artifact, which is exact."""
    artifact = compile_model(model.eval(), x, target="host", out=out, verify=2)
    record = artifact.manifest["verification"]
    assert record["passed"] is True, record["reason"]
    with torch.no_grad():
        expected = model(x)
    for ours, theirs in zip(artifact.run(x.numpy()), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)
    return list(artifact.manifest["layers"])


@pytest.mark.parametrize(("bits", "seed"), [("signs", 0), ("signs", 1), ("0 and 1", 2), ("three values", 3)])
def test_any_geometry(bits: str, seed: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 9, 4, 3)
    x[:, ::3] = x[:, ::3].round()
    layers = check(Side(BITS[bits], random_layers(seed, 5)), x, tmp_path)
    assert [layer["binarized"] for layer in layers] == [True] * 5


def ternary(layer: Any) -> Any:
    """Its weights become -a, 0 and a."""
    w = layer.weight.data
    layer.weight.data = 0.3 * torch.where(w.abs() > w.std() / 2, w.sign(), 0.0)
    return layer


def two_signs(layer: Any) -> Any:
    """Its weights become sums of two signs, each with a scale for each output channel."""
    w, scales = layer.weight.data, torch.rand(2, 1, layer.out_channels, *[1] * (layer.weight.dim() - 2)) + 0.5
    layer.weight.data = sum(
        scale * torch.where(s >= 0, 1.0, -1.0) for scale, s in zip(scales, (w, w.flip(0)), strict=True)
    )
    return layer


SEVERAL: dict[str, Callable[[Tensor], Tensor]] = BITS | {
    "two levels": lambda x: torch.where(x >= 0, 0.7, -0.2),
    "two bits": lambda x: torch.round(x.clamp(0, 1) * 3) / 3,
}


@pytest.mark.parametrize("bits", SEVERAL)
def test_weights_in_several_planes(bits: str, tmp_path: Path) -> None:
    torch.manual_seed(len(bits))
    layers = [
        ternary(nn.ConvTranspose2d(9, 5, 3, 2, 1, 1)),
        ternary(nn.ConvTranspose2d(9, 5, (2, 4), (3, 1), (0, 2))),
        two_signs(nn.ConvTranspose2d(9, 5, (4, 3), (2, 3), (1, 0))),
    ]
    layers = check(Side(SEVERAL[bits], layers), torch.randn(1, 9, 4, 3), tmp_path)
    assert [layer["binarized"] for layer in layers] == [True] * 3
    assert all("in 2 planes of bits" in layer["notes"] for layer in layers)


def test_planes_that_a_phase_has_wrong_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = find_binary.parts

    def turned(layer: Any) -> list[Any]:
        found = honest(layer)
        found[0] = replace(found[0], taps=(slice(0, None, 2), found[0].taps[1]))
        return found

    monkeypatch.setattr(find_binary, "parts", turned)
    model = Side(BITS["signs"], [ternary(nn.ConvTranspose2d(9, 5, 4, 2, 1))]).eval()
    x = torch.randn(1, 9, 4, 3)
    assert compile_model(model, x, out=tmp_path, verify=1).manifest["verification"]["passed"] is False


def test_binarized_by_every_algorithm_and_read_from_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 6)
    algorithms = ("bnn", "xnor", "xnorpp", "reactnet", "fda", "recu")
    layers = [
        trainers.binarize(
            nn.ConvTranspose1d(8, 12, 4, 2, padding=1 + i % 2, output_padding=i % 2), name, keep=[]
        )
        for i, name in enumerate(algorithms)
    ]
    model = Side(nn.Identity(), layers).eval()
    found = check(model, x, tmp_path / "torch")
    assert [layer["name"] for layer in found if layer["binarized"]] == [f"layers.{i}" for i in range(6)]
    torch.onnx.export(model, (x,), tmp_path / "up.onnx", dynamo=False)
    manifest = compile_model(tmp_path / "up.onnx", target="host", out=tmp_path / "onnx", verify=1).manifest
    assert sum(layer["binarized"] for layer in manifest["layers"]) == 6
    assert manifest["verification"]["passed"] is True, manifest["verification"]["reason"]


STAYS = {
    "with groups has no binary kernel": lambda: nn.ConvTranspose2d(9, 6, 3, groups=3),
    "with a dilation has no binary kernel": lambda: nn.ConvTranspose2d(9, 6, 3, dilation=2),
    "conv3d_transpose has no binary kernel": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 3)), with_signs(nn.ConvTranspose3d(3, 2, 2))
    ),
    "it comes from softmax, not from a sign": lambda: nn.Sequential(
        nn.Softmax(1), with_signs(nn.ConvTranspose2d(9, 6, 4, 2, 1, 1))
    ),
    "its weights are not +-alpha": lambda: nn.Sequential(nn.ConvTranspose2d(9, 6, 4, 2)),
}


def test_others_stay_float_with_a_reason(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = [make() for make in STAYS.values()]
    layers = [with_signs(layer) if isinstance(layer, nn.ConvTranspose2d) else layer for layer in made]
    model = Side(BITS["signs"], layers)
    for layer, reason in zip(check(model, torch.randn(1, 9, 4, 3), tmp_path), STAYS, strict=True):
        assert not layer["binarized"] and reason in layer["reason"], layer


class Generator(nn.Module):
    """Signs of sums that are often 0 but for rounding, before layers that stay float."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 18, 3)
        layers = [
            nn.ConvTranspose2d(18, 6, 3, padding=1, groups=3),
            nn.ConvTranspose2d(6, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
            nn.ConvTranspose2d(6, 4, 3, dilation=2, groups=1),
        ]
        for layer in layers:
            nn.init.zeros_(layer.bias)
            layer.weight.data = torch.where(layer.weight >= 0, 0.07, -0.07)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(BITS["signs"](x))
        return x


def generator(kind: str, folder: Path) -> dict[str, Any]:
    """The verification of a `Generator` from PyTorch or from ONNX."""
    torch.manual_seed(0)
    model: Any = Generator().eval()
    x = torch.zeros(2, 3, 9, 9)
    if kind != "torch":
        torch.onnx.export(model, (x,), folder / "m.onnx", dynamo=kind == "dynamo", verbose=False)
        model = folder / "m.onnx"
    artifact = compile_model(model, x, target="host", out=folder / "out", verify=2)
    return artifact.manifest["verification"]


@pytest.mark.parametrize("kind", ["torch", "onnx", "dynamo"])
def test_signs_before_layers_that_stay_float(kind: str, tmp_path: Path) -> None:
    """Of ONNX's own reference implementation, which has no groups in them, no rounding was known."""
    verification = generator(kind, tmp_path)
    assert verification["passed"], verification["reason"]
    assert not any("float64" in sentence for sentence in verification["not_compared"])
    assert verification["flipped_signs"] == verification["excused_flips"] > 0
    assert verification["signs"] == 2 * 2 * (18 * 7 * 7 + 6 * 7 * 7 + 6 * 14 * 14)


@pytest.mark.parametrize(("at", "kind"), [(0, "torch"), (1, "onnx"), (2, "torch")])
def test_a_fault_in_a_layer_that_stays_float_is_caught(
    at: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That signs next to a threshold fall otherwise than in the source explains nothing behind them."""
    honest = pipeline.lower_kernels

    def faulty(module: Any, *args: Any, **options: Any) -> Any:
        layers = [b.var for b in bindings(module) if is_call(b.value, "relax.nn.conv2d_transpose")]

        def visit(builder: Any, var: Any, value: Any) -> Any:
            if var.same_as(layers[at]):
                weights = constant_value(value.args[1]).copy()
                weights.flat[0] *= -3  # by more than a step of these sums
                return relax.Call(value.op, [value.args[0], relax.const(weights)], value.attrs)
            return value

        return honest(rewrite(module, visit), *args, **options)

    monkeypatch.setattr(pipeline, "lower_kernels", faulty)
    verification = generator(kind, tmp_path)
    assert verification["passed"] is False, verification


def test_a_part_in_the_wrong_place_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = find_binary.shuffled
    monkeypatch.setattr(
        find_binary, "shuffled", lambda builder, layer, sums: honest(builder, layer, sums[::-1])
    )
    model = Side(BITS["signs"], [with_signs(nn.ConvTranspose2d(9, 5, 4, 2, 1))]).eval()
    x = torch.randn(1, 9, 4, 3)
    assert compile_model(model, x, out=tmp_path, verify=1).manifest["verification"]["passed"] is False
