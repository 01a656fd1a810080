"""The forward of all algorithms against the slow twin, and what is promised about it in words."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trainers

BINARY = [name for name in trainers.list_algorithms() if name != "fp32"]
VARIANTS = ["paper", "released"]
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _signs(x: np.ndarray, threshold: Any = 0.0, tie: int = 1) -> np.ndarray:
    return np.where(x == threshold, float(tie), np.where(x > threshold, 1.0, -1.0))


def _geometry(layer: nn.Conv1d | nn.Conv2d) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    if layer.padding == "valid":
        pads = [(0, 0) for _ in layer.kernel_size]
    elif layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        pads = [(t // 2, t - t // 2) for t in totals]
    else:
        pads = [(int(p), int(p)) for p in layer.padding]
    return list(layer.stride), list(layer.dilation), pads


def _windows(layer: nn.Conv1d | nn.Conv2d, x: np.ndarray) -> Any:
    """Yield the output's extents, each of its positions, and that one's window of x, (N, C, *kernel)."""
    stride, dilation, pads = _geometry(layer)
    padded = np.pad(x, [(0, 0), (0, 0), *pads], mode=MODES[layer.padding_mode])  # type: ignore[call-overload]
    kernel = layer.kernel_size
    extents = [
        (padded.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(len(kernel))
    ]
    for position in np.ndindex(*extents):
        index = [
            slice(
                position[i] * stride[i],
                position[i] * stride[i] + dilation[i] * (kernel[i] - 1) + 1,
                dilation[i],
            )
            for i in range(len(kernel))
        ]
        yield extents, position, padded[(slice(None), slice(None), *index)]


def _correlate(layer: Any, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    if isinstance(layer, nn.Linear):
        return np.einsum("...k,ok->...o", x, w)
    out = None
    per_group = w.shape[0] // layer.groups
    for extents, position, window in _windows(layer, x):
        if out is None:
            out = np.zeros((x.shape[0], w.shape[0], *extents))
        for o in range(w.shape[0]):
            first = o // per_group * w.shape[1]
            part = window[:, first : first + w.shape[1]] * w[o]
            out[(slice(None), o, *position)] = part.reshape(len(part), -1).sum(1)
    assert out is not None
    return out


def _xnor_k(layer: Any, x: np.ndarray, variant: str) -> np.ndarray:
    if isinstance(layer, nn.Linear):
        return np.abs(x).mean(-1, keepdims=True)
    if variant == "released":
        return np.abs(x).mean(tuple(range(1, x.ndim)), keepdims=True)
    out = None
    for extents, position, window in _windows(layer, np.abs(x)):
        if out is None:
            out = np.zeros((x.shape[0], layer.out_channels, *extents))
        size = layer.in_channels // layer.groups
        for o in range(layer.out_channels):
            first = o // (layer.out_channels // layer.groups) * size
            part = window[:, first : first + size]
            out[(slice(None), o, *position)] = part.reshape(len(part), -1).mean(1)
    assert out is not None
    return out


def twin(
    layer: Any, algorithm: str, variant: str, x: np.ndarray, learned: dict[str, np.ndarray]
) -> np.ndarray:
    """What `algorithm` makes of the float `layer` at `x` in evaluation, with its `learned` parameters.

    Slow and obvious: loops over positions, in numpy and double precision. x is (N, C, ...) or (..., C).
    """
    linear = isinstance(layer, nn.Linear)
    spatial = 0 if linear else len(layer.kernel_size)
    w = layer.weight.detach().double().numpy()
    over = tuple(range(1, w.ndim))

    def per_channel(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *(1,) * spatial)

    if algorithm == "xnor" and variant == "released" and linear:
        w = w - w.mean(1, keepdims=True)
    if algorithm == "recu":
        w = w - w.mean(over, keepdims=True)
        w = w / np.sqrt(w.var(over, keepdims=True, ddof=1) + 1e-5)
        tau = 0.85
        if variant == "paper":
            w = np.clip(w, np.quantile(w, 1 - tau), np.quantile(w, tau))
        else:
            w = w * 2 * np.sqrt(2)
            q = -np.abs(w).mean() * np.log(2 - 2 * tau)
            w = np.clip(w, -q, q)
    a = _signs(x)
    if "threshold" in learned:
        a = _signs(x, learned["threshold"], -1 if variant == "paper" else 1)
    y = _correlate(layer, a, _signs(w))
    assert np.array_equal(y, np.round(y))
    alpha = per_channel(np.abs(w).mean(over))
    if algorithm == "dorefa" and variant == "paper":
        y = y * np.abs(w).mean()
    elif algorithm == "recu" and variant == "released":
        y = y * learned["alpha"]
    elif algorithm == "xnorpp":
        y = y * learned["alpha"]
        if spatial:
            y = y * learned["extents.0"][: y.shape[2]].reshape(-1, *(1,) * (spatial - 1))
        if spatial == 2:
            y = y * learned["extents.1"][: y.shape[3]]
    elif algorithm == "xnor":
        y = y * _xnor_k(layer, x, variant) * alpha
    elif algorithm != "bnn":
        y = y * alpha
    if layer.bias is None:
        return y
    bias = per_channel(layer.bias.detach().double().numpy())
    return y + (
        bias * learned["alpha"] if algorithm == "recu" and variant == "released" and spatial else bias
    )


@st.composite
def convolutions(draw: Any) -> tuple[nn.Module, torch.Tensor]:
    """A Conv1d or Conv2d of any kind with an input that it takes."""
    spatial = draw(st.sampled_from([1, 2]))
    groups = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(spatial))
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    stride: Any = 1 if padding == "same" else tuple(draw(st.integers(1, 3)) for _ in range(spatial))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    torch.manual_seed(draw(st.integers(0, 999)))
    layer = (nn.Conv1d if spatial == 1 else nn.Conv2d)(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride,
        tuple(draw(st.integers(0, 3)) for _ in range(spatial)) if padding == "numbers" else padding,
        tuple(draw(st.integers(1, 2)) for _ in range(spatial)),
        groups,
        draw(st.booleans()),
        mode,
    )
    extents = [draw(st.integers(6, 8)) for _ in range(spatial)]
    return layer, torch.randn(draw(st.integers(1, 2)), layer.in_channels, *extents)


def check_against_twin(layer: Any, x: torch.Tensor, algorithm: str, variant: str) -> None:
    if algorithm == "recu" and layer.weight[0].numel() == 1:
        return  # a channel of one weight has no deviation to standardise by
    binary = trainers.binarize(layer, algorithm, variant, keep=[]).eval()
    own = {name: p for name, p in binary.named_parameters() if name not in ("weight", "bias")}
    for parameter in own.values():
        nn.init.uniform_(parameter, 0.1, 0.6)
    if "threshold" in own:
        # ties with the threshold: put some activations exactly on it
        on_it = torch.rand_like(x) < 0.2
        x = torch.where(on_it, own["threshold"].detach().expand_as(x), x)
    else:
        x = torch.where(torch.rand_like(x) < 0.2, torch.zeros_like(x), x)
    learned = {name: p.detach().double().numpy() for name, p in own.items()}
    expected = twin(layer, algorithm, variant, x.double().numpy(), learned)
    np.testing.assert_allclose(binary(x).detach().numpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
@given(case=convolutions())
@settings(max_examples=25, deadline=None)
def test_convolutions_are_their_formula(algorithm: str, variant: str, case: tuple[Any, torch.Tensor]) -> None:
    check_against_twin(*case, algorithm, variant)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 1), (2, 2), ((3, 1), (1, 3)), (3, 4)])
def test_k_of_xnor_with_more_padding_than_pooling_takes(kernel: Any, padding: Any, dilation: int) -> None:
    layer = nn.Conv2d(4, 4, kernel, padding=padding, dilation=dilation, groups=2)
    check_against_twin(layer, torch.randn(1, 4, 6, 5), "xnor", "paper")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7)])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
def test_linear_layers_are_their_formula(
    algorithm: str, variant: str, shape: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(1)
    check_against_twin(nn.Linear(7, 4, bias=bias), torch.randn(shape), algorithm, variant)


@pytest.mark.parametrize("algorithm", BINARY)
def test_a_sample_without_batch_is_taken(algorithm: str) -> None:
    x = torch.randn(4, 6, 6)
    layer = trainers.binarize(nn.Conv2d(4, 6, 3, padding=1, groups=2), algorithm).eval()
    torch.testing.assert_close(layer(x), layer(x[None])[0])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", [name for name in BINARY if name not in ("fda", "recu")])
def test_training_and_evaluation_compute_the_same(algorithm: str, variant: str) -> None:
    x = torch.randn(2, 4, 6, 6)
    layer = trainers.binarize(nn.Conv2d(4, 6, 3, padding=1), algorithm, variant)
    assert torch.equal(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize(
    ("algorithm", "variant"), [("recu", "paper"), ("recu", "released"), ("fda", "paper")]
)
def test_operands_stay_binary_in_training(algorithm: str, variant: str) -> None:
    x = torch.randn(2, 4, 6, 6)
    layer = trainers.binarize(nn.Conv2d(4, 6, 3, padding=1), algorithm, variant)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-6, atol=1e-6)


def test_released_fda_adds_noise_in_training_until_its_end() -> None:
    x = torch.randn(2, 4, 6, 6)
    layer = trainers.binarize(nn.Conv2d(4, 6, 3, padding=1), "fda", "released")
    assert not torch.allclose(layer.train()(x), layer.eval()(x))
    trainers.set_progress(layer, 1.0)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x))


def test_sign_of_zero() -> None:
    zeros = torch.zeros(1, 2)
    linear = nn.Linear(2, 1, bias=False)
    nn.init.ones_(linear.weight)
    expected = dict.fromkeys(BINARY, 2.0) | {"reactnet": -2.0, "fda": -2.0, "xnor": 0.0, "recu": 0.0}
    for name, value in expected.items():
        assert trainers.binarize(linear, name).eval()(zeros).item() == value, name
    for name in ("reactnet", "fda"):
        assert trainers.binarize(linear, name, "released").eval()(zeros).item() == 2.0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
def test_nan_shows_in_training(algorithm: str, variant: str) -> None:
    nan = torch.tensor(float("nan"))
    x = torch.randn(2, 64).index_put((torch.tensor(0), torch.tensor(3)), nan)
    layer: Any = trainers.binarize(nn.Linear(64, 4), algorithm, variant).train()
    assert layer(x)[0].isnan().all()
    assert not layer(x)[1].isnan().any()
    if algorithm != "xnor":  # whose statistic of the activations is NaN
        assert not layer.eval()(x).isnan().any()
    with torch.no_grad():
        layer.weight[1, 5] = nan
    assert layer.train()(torch.randn(2, 64))[:, 1].isnan().all()


@pytest.mark.parametrize("algorithm", BINARY)
def test_weights_have_both_signs(algorithm: str) -> None:
    torch.manual_seed(0)
    layer: Any = trainers.binarize(nn.Conv2d(16, 32, 3), algorithm).eval()
    signs = layer.sign_weight(layer.redistribute(layer.weight))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean().abs() < 0.1


def test_channels_of_equal_weights_do_not_make_recu_nan() -> None:
    linear = nn.Linear(3, 2)
    nn.init.ones_(linear.weight)
    layer = trainers.binarize(linear, "recu").train()
    layer(torch.randn(2, 3)).sum().backward()
    assert linear.weight.grad is not None
    assert torch.isfinite(linear.weight.grad).all()


def test_xnorpp_says_what_is_too_large() -> None:
    layer = trainers.binarize(nn.Conv1d(1, 1, 1), "xnorpp")
    assert layer(torch.randn(1, 1, 2000)).shape == (1, 1, 2000)
    with pytest.raises(ValueError, match="at most 2000 positions in a row, not 2001"):
        layer(torch.randn(1, 1, 2001))
