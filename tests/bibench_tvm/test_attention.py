"""Attention of truths, as networks write it: its products are binary, and exact."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bibench_tvm import compile_model
from relay_passes.kernels import sign_sums

L, HEADS, DEPTH = 16, 3, 8


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


# Of scores, and a mask that is True where there is no token.
TRUTHS = {
    "sign + 1, halved": lambda a, m: (signs(a.masked_fill(m, -1e4)) + 1) / 2,
    "sign / 2 + 1 / 2": lambda a, m: signs(a.masked_fill(m, -1e9)) * 0.5 + 0.5,
    "a cast": lambda a, m: (a.masked_fill(m, float("-inf")) >= 0).float(),
    "where": lambda a, m: torch.where(a >= 0, 1.0, 0.0).masked_fill(m, 0.0),
    "where of tensors": lambda a, m: torch.where(m | (a < 0), torch.zeros_like(a), torch.ones_like(a)),
    "times a mask": lambda a, m: (a > 0).to(a.dtype) * (~m).to(a.dtype),
    "and": lambda a, m: ((a >= 0) & ~m).float() * 0.7,
    "heaviside": lambda a, m: torch.heaviside(a.masked_fill(m, -1.0), torch.tensor(1.0)),
    "heaviside of 0": lambda a, m: torch.heaviside(a, torch.tensor(0.0)).masked_fill(m, 0),
    "clamped sign": lambda a, m: torch.sign(a.masked_fill(m, -1e4)).clamp(min=0),
    "sign without -1": lambda a, m: (s := torch.sign(a.masked_fill(m, -5.0))).masked_fill(s == -1, 0.0),
    "mask added": lambda a, m: signs(a + m.float() * -1e4).relu(),
}


class Attention(nn.Module):
    """(1, L, 24) and bool (1, L), True where there is a token -> (1, HEADS, L, DEPTH) for each spelling."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.projections = nn.ModuleList(nn.Linear(HEADS * DEPTH, HEADS * DEPTH) for _ in range(3))

    def forward(self, x: Tensor, there: Tensor) -> list[Tensor]:
        q, k, v = (signs(p(x).unflatten(-1, (HEADS, DEPTH)).transpose(1, 2)) for p in self.projections)
        scores, absent = q @ k.transpose(-1, -2) / DEPTH**0.5, ~there[:, None, None]
        results = []
        for i, name in enumerate(self.names):
            weights = TRUTHS[name](scores, absent)
            turned = v.transpose(-1, -2) * -0.3, weights.transpose(-1, -2)
            results.append(turned[0] @ turned[1] if i % 2 else weights @ v)
        return results


def network(names: list[str]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    inputs = torch.randn(1, L, HEADS * DEPTH), torch.arange(L)[None] < 12
    return Attention(names).eval(), inputs


def floats(manifest: Mapping[str, Any]) -> list[str]:
    """Why a product stays float, and why a verification failed; nothing where all is well."""
    products = [layer for layer in manifest["layers"] if layer["op"] in ("matmul", "bmm")]
    found = [layer["reason"] for layer in products if not layer["binarized"]]
    return [*found, *filter(None, [manifest["verification"]["reason"]])]


def test_products_of_truths_are_binary_and_exact(tmp_path: Path) -> None:
    model, inputs = network(list(TRUTHS))
    artifact = compile_model(model, inputs, target="host", out=tmp_path, verify=2)
    assert not floats(artifact.manifest) and artifact.manifest["verification"]["passed"] is True
    with torch.no_grad():
        expected = model(*inputs)
    for ours, theirs in zip(artifact.run(*(x.numpy() for x in inputs)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_so_they_are_from_onnx(tmp_path: Path) -> None:
    model, inputs = network(["sign + 1, halved", "where", "a cast", "clamped sign", "sign without -1"])
    torch.onnx.export(model, inputs, tmp_path / "a.onnx", dynamo=False, opset_version=17)
    manifest = compile_model(tmp_path / "a.onnx", target="host", out=tmp_path / "out", verify=2).manifest
    assert sum(layer["binarized"] for layer in manifest["layers"]) == 6
    assert not floats(manifest) and manifest["verification"]["passed"] is True


class Elastic(nn.Module):
    """BiT's elastic binarization: queries and keys of -a and a, probabilities of 0 and a, values of both.

    (1, L, 24) -> two of (1, HEADS, L, DEPTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(HEADS * DEPTH, HEADS * DEPTH) for _ in range(3))
        self.alpha = nn.Parameter(torch.tensor([0.7, 0.9, 0.05, 1.3]))
        self.beta = nn.Parameter(torch.tensor([0.1, -0.2, 0.02, 0.05]))

    def both_signs(self, x: Tensor, i: int) -> Tensor:
        return self.alpha[i] * signs((x - self.beta[i]) / self.alpha[i])

    def from_0(self, x: Tensor, i: int) -> Tensor:
        return self.alpha[i] * torch.round(torch.clamp((x - self.beta[i]) / self.alpha[i], 0, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (p(x).unflatten(-1, (HEADS, DEPTH)).transpose(1, 2) for p in self.projections)
        scores = self.both_signs(q, 0) @ self.both_signs(k, 1).transpose(-1, -2)
        weights = self.from_0(torch.softmax(scores / DEPTH**0.5, -1), 2)
        return weights @ self.both_signs(v, 3), weights @ self.from_0(torch.relu(v), 3)


def test_elastic_binarization_is_binary_and_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, L, HEADS * DEPTH)
    manifest = compile_model(Elastic().eval(), x, target="host", out=tmp_path, verify=2).manifest
    assert [layer["binarized"] for layer in manifest["layers"]] == [False] * 3 + [True] * 3
    assert not floats(manifest) and manifest["verification"]["passed"] is True


def test_a_wrong_sum_of_signs_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sign_sums.sign_sums_kernel
    monkeypatch.setattr(
        sign_sums, "sign_sums_kernel", lambda extents, p: honest(extents, replace(p, channels=p.channels - 1))
    )
    model, inputs = network(["a cast"])
    record = compile_model(model, inputs, target="host", out=tmp_path, verify=1).manifest["verification"]
    assert record["passed"] is False and "do not compute what they should: matmul#2 (" in record["reason"]


class Pooled(nn.Module):
    """Products with one column: (5, 7, 24) -> eight of (5, 7, 1), of -1 and 1 or 0 and 1 on either side."""

    def forward(self, x: Tensor) -> list[Tensor]:
        column = x.amax(1, keepdim=True).transpose(-1, -2) - 1.5
        return [
            (right.transpose(-1, -2) @ left.transpose(-1, -2)).transpose(-1, -2) if turned else left @ right
            for left in (signs(x), (x > 0).float())
            for right in (signs(column), (column > 0).float() * 0.5)
            for turned in (False, True)
        ]


def test_products_with_one_column(tmp_path: Path) -> None:
    """They are computed as one row, and compared with the source's."""
    torch.manual_seed(0)
    x = torch.randn(5, 7, 24)
    artifact = compile_model(Pooled(), x, target="host", out=tmp_path, verify=2)
    assert not floats(artifact.manifest) and artifact.manifest["verification"]["passed"] is True
    for ours, theirs in zip(artifact.run(x.numpy()), Pooled()(x), strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
