"""The gradients of convolutions as they were released: the code of the authors written with autograd."""

from typing import Any

import pytest
import torch
from torch import nn

import trainers


def _through(value: torch.Tensor, surrogate: torch.Tensor) -> torch.Tensor:
    """`value`, with the gradient of `surrogate`."""
    return value.detach() + surrogate - surrogate.detach()


def _poly(x: torch.Tensor) -> torch.Tensor:
    """The integral of 2 - 2|x| on [-1, 1], constant outside."""
    inside = torch.where(x < 0, x * x + 2 * x, 2 * x - x * x)
    return torch.where(x.abs() < 1, inside, x.sign())


@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("algorithm", ["xnor", "dorefa", "bireal", "reactnet"])
def test_what_was_released_leaves_scales_out_of_its_gradients(algorithm: str, kind: str) -> None:
    """alpha and K are part of the values whose sign's gradient passes straight through, and so not in it."""
    torch.manual_seed(0)
    conv = kind == "conv"
    layer = nn.Conv2d(4, 6, 3, 2, 1, groups=2) if conv else nn.Linear(9, 5)
    w = layer.double().weight.detach().clone().mul_(3).requires_grad_()
    layer.weight.data[:] = w.detach()
    x = (torch.randn(2, 4, 5, 5) if conv else torch.randn(3, 9)).double().requires_grad_()
    over = tuple(range(1, w.dim()))
    centred = w - w.mean(1, keepdim=True) if algorithm == "xnor" and not conv else w
    signs, alpha = torch.where(centred >= 0, 1.0, -1.0), centred.detach().abs().mean(over, keepdim=True)
    a, surrogate = (
        torch.where(x >= 0, 1.0, -1.0),
        _poly(x) if algorithm in ("bireal", "reactnet") else x.clamp(-1, 1),
    )
    outside: Any = 1
    if conv or algorithm in ("bireal", "reactnet"):
        bw = _through(alpha * signs, centred.clamp(-1, 1))
        k = x.detach().abs().mean((1, 2, 3), keepdim=True) if algorithm == "xnor" else 1
        ba = _through(k * a, surrogate)
    else:
        bw, ba = _through(signs, centred.clamp(-1, 1)), _through(a, surrogate)
        outside = alpha.flatten() * (x.detach().abs().mean(1, keepdim=True) if algorithm == "xnor" else 1)
    product = nn.functional.conv2d(ba, bw, None, 2, 1, 1, 2) if conv else nn.functional.linear(ba, bw)
    bias = layer.bias.detach()  # type: ignore[union-attr]
    expected = product * outside + (bias[:, None, None] if conv else bias)
    out = torch.randn_like(expected)
    to_x, to_w = torch.autograd.grad(expected, (x, w), out)
    y = trainers.binarize(layer, algorithm, "released").train()(x)
    ours_x, ours_w = torch.autograd.grad(y, (x, layer.weight), out)
    for ours, theirs in ((y, expected), (ours_x, to_x), (ours_w, to_w)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
