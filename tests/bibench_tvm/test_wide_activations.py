"""Binary weights with wider activations: in bits where that costs little, and what the source computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_tvm import compile_model
from relay_passes.ir.notes import STORED_NOTE
from schedules.parts import bit_weights


def two_levels(layer: Any, beta: float = 0.0, detour: bool = False) -> Any:
    """Weights alpha s + beta; detour: as a straight-through estimator leaves them."""
    w = layer.weight.data
    alpha = w.abs().mean(tuple(range(1, w.dim())), keepdim=True)
    values = torch.where(w >= 0, alpha, -alpha) + beta
    layer.weight.data = (values - w) + w if detour else values
    return layer


# Layer -> (its weights, bytes of them as float32 and as int8, why they are no bits).
LAYERS: dict[str, tuple[Any, int, int, str]] = {
    "first": (lambda: nn.Conv2d(3, 16, 3, 2, 1), 16 * (4 + 8), 16 * (4 + 2), ""),
    "one_by_one": (lambda: nn.Conv2d(16, 24, 1), 24 * (2 + 8), 24 * (2 + 2), ""),
    "strided": (lambda: nn.Conv2d(24, 20, 3, 2, padding=(0, 2)), 20 * (27 + 8), 20 * (27 + 2), ""),
    "grouped": (lambda: nn.Conv2d(20, 30, 3, padding=1, groups=5), 30 * (5 + 8), 30 * (5 + 2), ""),
    "depthwise": (lambda: nn.Conv2d(30, 30, 3, groups=30), 30 * 9 * 4, 30 * 9, "only 270 of them, in"),
    "tokens": (lambda: nn.Linear(30, 40), 40 * (4 + 8), 40 * (4 + 2), ""),
    "small": (lambda: nn.Linear(40, 512), 512 * 160, 512 * 40, "meets one pixel only, and to decode 20,480"),
    "large": (lambda: nn.Linear(512, 520), 520 * (64 + 8), 520 * (64 + 2), ""),
}  # fmt: skip


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for i, (name, (make, *_)) in enumerate(LAYERS.items()):
            self.add_module(name, two_levels(make(), 0.01 * (i % 3), detour=name == "strided"))

    def forward(self, x: Tensor) -> Tensor:
        for name in ("first", "one_by_one", "strided", "grouped", "depthwise"):
            x = F.relu(self.get_submodule(name)(x))
        x = F.relu(self.tokens(x.flatten(2).transpose(1, 2)))
        return self.large(F.relu(self.small(x.mean(1))))


def compiled(source: str, float_layers: str, folder: Path) -> tuple[Any, nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = Network().eval(), torch.randn(1, 3, 24, 28)
    given: Any = model
    if source == "onnx":
        given = folder / "model.onnx"
        torch.onnx.export(model, (x,), str(given), dynamo=False, verbose=False)
    return compile_model(given, x, out=folder / "out", verify=2, float_layers=float_layers), model, x


@pytest.mark.parametrize(("source", "float_layers"), [("onnx", "float32"), ("torch", "int8")])
def test_two_numbers_of_each_channel_are_bits(source: str, float_layers: str, tmp_path: Path) -> None:
    artifact, model, x = compiled(source, float_layers, tmp_path)
    layers, verification = artifact.manifest["layers"], artifact.manifest["verification"]
    assert verification["passed"], verification["reason"]
    for layer, (name, (_, floats, bytes_, reason)) in zip(layers, LAYERS.items(), strict=True):
        assert (layer["binarized"], layer["dtype"]) == (False, float_layers) and layer["reason"]
        assert layer["weight_bytes"] == (bytes_ if float_layers == "int8" else floats), name
        assert reason in layer["notes"] if reason else layer["notes"].startswith(STORED_NOTE), layer
        assert ("rounding in the source moves its weights" in layer["notes"]) == (name == "strided")
    assert artifact.manifest["size_bytes"]["deployed"] < 0.5 * artifact.manifest["size_bytes"]["float32"]
    if float_layers == "float32":
        expected = model(x).detach().numpy()
        np.testing.assert_allclose(artifact.run(x.numpy()), expected, rtol=1e-4, atol=1e-5)


def test_a_wrong_bit_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bit_weights.pack_weights
    monkeypatch.setattr(bit_weights, "pack_weights", lambda bits, word: honest(bits, word) ^ 1)
    artifact, _, _ = compiled("torch", "float32", tmp_path)
    assert artifact.manifest["verification"]["passed"] is False
