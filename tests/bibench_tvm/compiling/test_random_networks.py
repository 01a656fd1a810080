"""Random networks compute on the host what PyTorch computes: signs in many spellings, rectifiers, paddings,
pools, concats, sums, scales and convolutions, several to a module.

`pytest tests/bibench_tvm/compiling/test_random_networks.py --networks 1000` tries so many.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bibench_tvm import compile_model

PER_MODULE = 10
SIGNS = {
    "sign": torch.sign,
    "where >=": lambda x: torch.where(x >= 0, 1.0, -1.0),
    "where >": lambda x: torch.where(x > 0, 1.0, -1.0),
    "where <": lambda x: torch.where(x < 0, -1.0, 1.0),
    "2 b - 1": lambda x: 2 * (x >= 0).float() - 1,
    "truth": lambda x: (x > 0).float(),
    "sign of sign": lambda x: torch.sign(torch.sign(x) + 0.1),
    "half a sign": lambda x: torch.sign(x) * 0.5,
    "minus a sign": lambda x: -torch.sign(x),
    "rounded": lambda x: torch.round(torch.clamp(x, 0, 1)),
}
UNARY = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "abs": torch.abs,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "half": lambda x: x * 0.5,
    "minus": lambda x: -x,
    "minus one": lambda x: x - 1,
    "at least": lambda x: torch.maximum(x, torch.tensor(0.0)),
    "thresholded": lambda x: torch.where(x > 0.2, x, torch.zeros_like(x)),
    "gated": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "padded": lambda x: F.pad(x, (1, 0, 0, 1)),
    "padded with 1": lambda x: F.pad(x, (0, 1, 1, 0), value=1.0),
    "reflected": lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
    "largest": lambda x: F.max_pool2d(x, 2, 1),
    "average": lambda x: F.avg_pool2d(x, 2, 1, 0),
    "average at a border": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "upsampled": lambda x: F.interpolate(x, scale_factor=2.0) if x.shape[-1] < 8 else x,
    "halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "shuffled": lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "cut": lambda x: x[:, :, 1:] if x.shape[2] > 4 else x,
}


class Network(nn.Module):
    """A straight line with sums and concats of what came before."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.steps: list = []
        for i in range(int(rng.integers(4, 10))):
            kind = rng.choice(["unary", "unary", "norm", "float", "binary", "binary", "join"])
            if kind == "unary":
                self.steps.append(("unary", rng.choice(list(UNARY))))
            elif kind == "norm":
                self.add_module(f"norm{i}", _norm(rng))
                self.steps.append(("layer", f"norm{i}"))
            elif kind == "join":
                self.steps.append(("join", rng.choice(["add", "cat", "mul", "max"])))
            else:
                groups = int(rng.choice([1, 1, 2, 8]))
                layer = nn.Conv2d(
                    8, 8, int(rng.choice([1, 3])), padding=int(rng.integers(2)), groups=groups,
                    bias=bool(rng.random() < 0.5), stride=int(rng.choice([1, 1, 2])),
                )  # fmt: skip
                with torch.no_grad():
                    layer.weight.copy_(torch.from_numpy(rng.normal(size=layer.weight.shape)))
                    if layer.bias is not None:
                        layer.bias.copy_(torch.from_numpy(rng.normal(size=8)))
                    if kind == "binary":
                        alpha = torch.from_numpy(rng.choice([0.5, 1.0, 0.3], (8, 1, 1, 1)))
                        layer.weight.copy_(torch.where(layer.weight >= 0, alpha, -alpha))
                        self.steps.append(("sign", rng.choice(list(SIGNS))))
                self.add_module(f"conv{i}", layer)
                self.steps.append(("layer", f"conv{i}"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x
        for kind, name in self.steps:
            if x.shape[-1] < 3 or x.shape[-2] < 3:
                break
            new = x
            if kind == "unary":
                new = UNARY[name](x)
            elif kind == "sign":
                new = SIGNS[name](x)
            elif kind == "layer":
                new = getattr(self, name)(x)
            elif before.shape == x.shape:
                new = {"add": x + before, "mul": x * before, "max": torch.maximum(x, before)}.get(name)
                if name == "cat":
                    new = torch.cat([x, before], 1)[:, 4:12]
            before, x = x, new
        return x


def _norm(rng: np.random.Generator) -> nn.Module:
    """Fresh, or with the statistics of a trained one."""
    norm = nn.BatchNorm2d(8)
    if rng.random() < 0.7:
        with torch.no_grad():
            for values in (norm.weight, norm.bias, norm.running_mean):
                values.copy_(torch.from_numpy(rng.normal(size=8)))
    return norm


class Several(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.networks = nn.ModuleList(Network(rng) for _ in range(PER_MODULE))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(network(x) for network in self.networks)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("networks") // PER_MODULE))


def test_a_module_of_random_networks(seed: int, tmp_path: Path) -> None:
    model = Several(seed).eval()
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(4, 8, 7, 7)).astype(np.float32)
    samples[2:] *= rng.random((2, 8, 7, 7)) < 0.6  # pixels that are 0
    artifact = compile_model(model, torch.zeros(1, 8, 7, 7), out=tmp_path, verify=4, samples=samples)
    record = artifact.manifest["verification"]
    assert record["passed"] is True, record["reason"]
    if record["flipped_signs"] == 0:
        ours = artifact.run(samples)
        with torch.no_grad():
            theirs = model(torch.from_numpy(samples))
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            scale = max(1.0, float(b.abs().max()))
            np.testing.assert_allclose(a, b.numpy(), atol=1e-4 * scale, err_msg=str(model.networks[i].steps))
