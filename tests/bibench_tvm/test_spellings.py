"""Signs as people spell them, and moves of signs, from PyTorch and from ONNX: in bits, and exact."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_tvm import compile_model

SHAPE = (1, 8, 4, 4)
NOT_IN_ONNX = {"heaviside", "copysign"}  # torch.onnx has no way to write them
DETOURS = {"straight through a clip", "straight through tanh", "h + (s - h)"}
Function = Callable[[Tensor], Tensor]


def repaired(x: Tensor) -> Tensor:
    s = torch.sign(x)
    return s + (1.0 - s.abs())


def put(x: Tensor) -> Tensor:
    s = torch.sign(x).clone()
    s[s == 0] = 1.0
    return s


def nested(x: Tensor) -> Tensor:
    return torch.where(x > 1, 1.0, torch.where(x < -1, -1.0, torch.where(x >= 0, 1.0, -1.0)))


def through(soft: Function) -> Function:
    return lambda x: torch.where(x >= 0, 1.0, -1.0) - soft(x) + soft(x)


def bits(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


PER_CHANNEL = torch.linspace(-1, 1, 8).reshape(1, 8, 1, 1)
SIGNS: dict[str, Function] = {
    "s + (1 - |s|)": repaired,
    "where s == 0": lambda x: torch.where(torch.sign(x) == 0, 1.0, torch.sign(x)),
    "s[s == 0] = 1": put,
    "a difference of truths": lambda x: (x >= 0).float() - (x < 0).float(),
    "s + (x == 0)": lambda x: torch.sign(x) + (x == 0).float(),
    "masked twice": lambda x: x.masked_fill(x >= 0, 1.0).masked_fill(x < 0, -1.0),
    "nested where": nested,
    "a power of -1": lambda x: torch.pow(-1.0, (x < 0).float()),
    "floor": lambda x: torch.floor(torch.clamp(x, -1, 1) / 2 + 0.5) * 2 - 1,
    "round": lambda x: 2 * torch.round(torch.clamp((x + 1) / 2, 0, 1)) - 1,
    "round of sigmoid": lambda x: torch.round(torch.sigmoid(x)) * 2 - 1,
    "sign of a shifted sign": lambda x: torch.sign(torch.sign(x) - 0.5),
    "a quotient": lambda x: torch.where(x == 0, 1.0, x / x.abs()),
    "outside of an interval": lambda x: ((x.abs() > 0.7).float() - 0.5) * 2,
    "a threshold per channel": lambda x: 1 - 2 * (x * PER_CHANNEL < PER_CHANNEL.abs() - 0.5).float(),
    "straight through a clip": through(lambda x: x.clamp(-1, 1)),
    "straight through tanh": through(lambda x: torch.tanh(3 * x)),
    "h + (s - h)": lambda x: x + (bits(x) - x),
    "a clip of what is far away": lambda x: torch.clamp((x >= 0).float() * 9 - 4, -1, 1),
    "heaviside": lambda x: torch.heaviside(x, torch.tensor(1.0)) * 2 - 1,
    "copysign": lambda x: torch.copysign(torch.tensor(1.0), x),  # of -0.0 too
}
MOVES: dict[str, Function] = {
    "chunk": lambda x: torch.cat(bits(x).chunk(2, 1)[::-1], 1),
    "cat": lambda x: torch.cat([bits(x[:, :3]), bits(x[:, 3:] - 0.3)], 1),
    "index": lambda x: bits(x)[:, torch.tensor([3, 1, 0, 2, 7, 5, 6, 4])],
    "shuffle": lambda x: bits(x).view(1, 2, 4, 4, 4).transpose(1, 2).reshape(SHAPE),
    "flip": lambda x: bits(x).flip(3),
    "roll": lambda x: torch.roll(bits(x), 1, 2),
    "tile": lambda x: bits(x).repeat(1, 1, 2, 1),
    "nearest": lambda x: F.interpolate(bits(x), scale_factor=2.0, mode="nearest"),
    "pixel shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(bits(x), 2), 2),
    "slices": lambda x: bits(x)[:, :, 1:, ::2],
    "padded with 1": lambda x: F.pad(bits(x), (1, 0, 2, 1), value=1.0),
    "padded with -1": lambda x: F.pad(bits(x), (1, 1, 1, 1), value=-1.0),
    "replicated": lambda x: F.pad(bits(x), (1, 1, 1, 1), mode="replicate"),
    "reflected": lambda x: F.pad(bits(x), (1, 1, 1, 1), mode="reflect"),
    "stacked": lambda x: torch.stack([bits(x), bits(-x)], 2).flatten(1, 2)[:, ::2],
}


class Spelled(nn.Module):
    """One layer for each spelling; the last channel of its weights is off alpha by rounding."""

    def __init__(self, functions: list[Function]) -> None:
        super().__init__()
        self.functions = functions
        signs = torch.randint(0, 2, (len(functions), 5, 8, 1, 1), generator=torch.Generator().manual_seed(0))
        weights = (signs * 2.0 - 1) * 0.3
        weights[:, 4, ::4] *= 1 + 2.0**-22
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.conv2d(f(x), w) for f, w in zip(self.functions, self.weights, strict=True)]


def edges() -> np.ndarray:
    """Numbers at which some spelling changes, their neighbours, and infinities."""
    at = np.float32([0, 1, -1, 0.5, -0.5, 0.7, -0.7, 0.3, 2, 1e-30])
    near = [at, np.nextafter(at, np.float32(9)), np.nextafter(at, np.float32(-9)), -np.zeros(2, np.float32)]
    return np.resize(np.concatenate(near), SHAPE)


@pytest.mark.parametrize("source", ["torch", "onnx"])
@pytest.mark.parametrize("functions", [SIGNS, MOVES], ids=["signs", "moves"])
def test_spellings_are_bits(functions: dict[str, Function], source: str, tmp_path: Path) -> None:
    kept = {name: f for name, f in functions.items() if source == "torch" or name not in NOT_IN_ONNX}
    model = Spelled(list(kept.values())).eval()
    x = torch.from_numpy(edges())
    given: Any = model
    if source == "onnx":
        given = tmp_path / "model.onnx"
        torch.onnx.export(model, (x,), str(given), dynamo=False, verbose=False)
    artifact = compile_model(given, x, target="host", out=tmp_path / "out", verify=1)
    layers = artifact.manifest["layers"]
    found = dict(zip(kept, layers, strict=True))
    assert not {name: layer["reason"] for name, layer in found.items() if not layer["binarized"]}
    assert {
        name for name, layer in found.items() if "weights from +-alpha, by 2e-07 of" not in layer["notes"]
    } == set()
    noted = {name for name in kept if "its input is -1 and 1 but for rounding" in found[name]["notes"]}
    assert noted == DETOURS & set(kept)
    verification = artifact.manifest["verification"]
    assert verification["passed"] and verification["integers_exact"], verification["reason"]
    for name, ours, theirs in zip(kept, artifact.run(x.numpy()), model(x), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5, err_msg=name)
