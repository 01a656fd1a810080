"""The gradients against the published formulas, at points worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from trainers.operator import divide_gradient

# One output, four inputs. mean|w| is 0.5, and so is alpha where it is a statistic, per channel or per layer.
WEIGHTS = [0.25, -0.5, 1.125, -0.125]
INPUTS = [0.5, -0.25, 0.75, -1.5]
SIGNS_W = np.array([1, -1, 1, -1])
SIGNS_A = np.array([1, -1, 1, -1])

CLIP_A, CLIP_W = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 1])  # eq. 12: 1 where |x| < 1
POLY_A = np.array([1.0, 1.5, 0.5, 0.0])  # eq. 16: 2 - 2|a| where |a| <= 1


def gradients(algorithm: str, variant: str = "paper", **learned: float) -> tuple[np.ndarray, np.ndarray, Any]:
    """d o / d a and d o / d w of a linear layer in training, and the layer."""
    linear = nn.Linear(4, 1, bias=False).double()
    linear.weight.data[:] = torch.tensor(WEIGHTS)
    layer: Any = trainers.binarize(linear, algorithm, variant).train()
    for name, value in learned.items():
        nn.init.constant_(layer.get_parameter(name), value)
    a = torch.tensor([INPUTS], dtype=torch.double, requires_grad=True)
    layer(a).sum().backward()
    assert a.grad is not None
    return a.grad[0].numpy(), layer.weight.grad[0].numpy(), layer


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize(
    ("algorithm", "scale", "of_a", "of_w"),
    [
        ("bnn", 1.0, CLIP_A, CLIP_W),
        ("dorefa", 0.5, CLIP_A, CLIP_W),
        ("xnorpp", 1.0, CLIP_A, CLIP_W),
        ("bireal", 0.5, POLY_A, CLIP_W),
        ("reactnet", 0.5, POLY_A, CLIP_W),
    ],
)
def test_straight_through_and_polynomial(
    algorithm: str, variant: str, scale: float, of_a: np.ndarray, of_w: np.ndarray
) -> None:
    to_a, to_w, _ = gradients(algorithm, variant)
    np.testing.assert_allclose(to_a, scale * SIGNS_W * of_a)
    if variant == "released" and algorithm in ("bireal", "reactnet"):
        scale = 1.0  # alpha is left out of the gradient there
    np.testing.assert_allclose(to_w, scale * SIGNS_A * of_w)


@pytest.mark.parametrize("algorithm", ["bnn", "xnor", "dorefa", "xnorpp", "bireal", "reactnet"])
def test_the_clip_is_open_in_the_paper_and_closed_as_released(algorithm: str) -> None:
    for variant, at_one in (("paper", 0.0), ("released", 1.0)):
        linear = nn.Linear(3, 1, bias=False)
        linear.weight.data[:] = torch.tensor([1.0, -1.0, 0.5])
        if algorithm == "xnor" and variant == "released":  # centres the weights, to 1, -1 and 0
            linear.weight.data[0, 2] = 0.0
        layer: Any = trainers.binarize(linear, algorithm, variant).train()
        a = torch.tensor([[1.0, -1.0, 0.5]], requires_grad=True)
        layer(a).sum().backward()
        assert a.grad is not None
        assert [bool(g) for g in layer.weight.grad[0]] == [at_one == 1] * 2 + [True]
        if layer.input_derivative.__name__.endswith("clip"):
            assert [bool(g) for g in a.grad[0]] == [at_one == 1] * 2 + [True]


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


def test_released_recu_divides_by_the_unbiased_deviation() -> None:
    torch.manual_seed(0)
    layer: Any = trainers.binarize(nn.Linear(4, 1, bias=False).double(), "recu", "released").train()
    x = torch.tensor([[0.3, -0.2, 1.5, -0.9]], dtype=torch.double, requires_grad=True)
    scaled = x / (x.var(1, unbiased=True, keepdim=True) + 1e-5).sqrt()
    w = torch.where(layer.weight >= layer.weight.mean(), 1.0, -1.0).double()
    (expected,) = torch.autograd.grad((_poly(scaled) * w * layer.alpha).sum(), x)
    (ours,) = torch.autograd.grad(layer(x).sum(), x)
    assert expected.abs().min() > 0.01
    torch.testing.assert_close(ours, expected)


def test_xnor_has_no_gradient_through_its_statistics() -> None:
    to_a, to_w, _ = gradients("xnor")
    scale = 0.5 * 0.75  # alpha times K = mean|a| = 3 / 4
    np.testing.assert_allclose(to_a, scale * SIGNS_W * CLIP_A)
    np.testing.assert_allclose(to_w, scale * SIGNS_A * CLIP_W)


def test_the_polynomial_is_two_at_zero_and_nothing_at_the_ends() -> None:
    layer = trainers.binarize(nn.Linear(5, 1, bias=False), "bireal").train()
    nn.init.ones_(layer.get_parameter("weight"))
    a = torch.tensor([[-1.0, -0.0, 0.0, 1.0, 7.0]], requires_grad=True)
    layer(a).sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [[0.0, 2.0, 2.0, 0.0, 0.0]]


@pytest.mark.parametrize("algorithm", ["reactnet", "fda"])
def test_the_threshold_gets_minus_the_gradient_of_the_activation(algorithm: str) -> None:
    to_a, _, layer = gradients(algorithm, threshold=0.25)
    np.testing.assert_allclose(layer.threshold.grad.numpy(), -to_a)  # eq. 22
    if algorithm == "reactnet":  # a - t is 0.25, -0.5, 0.5, -1.75
        np.testing.assert_allclose(to_a, 0.5 * SIGNS_W * [1.5, 1.0, 1.0, 0.0])


def test_learned_scales_get_the_gradient_of_a_product() -> None:
    _, _, layer = gradients("xnorpp", alpha=0.3)
    assert layer.alpha.grad.item() == 4.0  # the integer that it scales: 1 + 1 + 1 + 1
    _, _, layer = gradients("recu", "released", alpha=0.3)
    assert layer.alpha.requires_grad
    assert layer.alpha.grad is not None


@pytest.mark.parametrize(("progress", "n"), [(0.0, 9), (1.0, 18)])
def test_fda_has_the_fourier_series(progress: float, n: int) -> None:
    layer: Any = trainers.binarize(nn.Linear(3, 1).double(), "fda")
    trainers.set_progress(layer, progress)
    x = torch.tensor([0.0, 0.5, -3.0], dtype=torch.double)
    # sum_{i=0..n} cos((2i + 1) t) = sin(2 (n + 1) t) / (2 sin t), and n + 1 at 0
    sums = [n + 1.0] + [math.sin(2 * (n + 1) * t) / (2 * math.sin(t)) for t in (0.05, -0.3)]
    np.testing.assert_allclose(layer.fourier(x).numpy(), 0.4 / math.pi * np.array(sums), rtol=1e-12)
    released: Any = trainers.binarize(nn.Linear(3, 1).double(), "fda", "released")
    trainers.set_progress(released, progress)
    np.testing.assert_allclose(released.fourier(x).numpy()[:2], layer.fourier(x).numpy()[:2])
    assert released.fourier(x)[2] == 0


def test_fda_adds_the_gradient_of_its_noise() -> None:
    linear = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(linear.weight, -0.5)
    layer: Any = trainers.binarize(linear, "fda").train()
    trainers.set_progress(layer, 0.5)  # kappa = 0.05 (1 + cos(pi / 2)) = 0.05, n = 13
    for noise in (layer.input_noise, layer.weight_noise):
        for parameter, value in zip(noise.parameters(), (3.0, 2.0), strict=True):  # fc1, fc2; no biases
            nn.init.constant_(parameter, value)
    a = torch.tensor([[0.25]], dtype=torch.double, requires_grad=True)
    layer(a).backward()

    def series(t: float) -> float:
        return 0.4 / math.pi * sum(math.cos((2 * i + 1) * 0.1 * t) for i in range(14))

    # alpha = 0.5, o = 0.5 sign(a) sign(w); relu'(3 a) = 1, relu'(3 w) = 0 (eqs 31-32)
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(-0.5 * (series(0.25) + 0.05 * (2 * 3 + 0.1 * math.cos(0.25))))
    assert linear.weight.grad is not None
    assert linear.weight.grad.item() == pytest.approx(0.5 * (series(-0.5) + 0.05 * 0.1 * math.cos(-0.5)))
    assert layer.input_noise.fc1.weight.grad.item() == pytest.approx(-0.5 * 0.05 * 2 * 0.25)
    assert layer.input_noise.fc2.weight.grad.item() == pytest.approx(-0.5 * 0.05 * 3 * 0.25)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_recu_passes_the_gradient_through_clamp_and_standardisation(variant: str) -> None:
    generator = np.random.default_rng(0)
    w, a = generator.laplace(size=(2, 40)), generator.uniform(-1.3, 1.3, (3, 40))
    linear = nn.Linear(40, 2, bias=False).double()
    linear.weight.data[:] = torch.from_numpy(w)
    layer: Any = trainers.binarize(linear, "recu", variant).train()
    spread = 1.0 if variant == "paper" else 2 * math.sqrt(2)
    std = np.sqrt(w.var(1, ddof=1, keepdims=True) + 1e-5)
    v = (w - w.mean(1, keepdims=True)) / std * spread
    tau = 0.85
    if variant == "paper":
        low, high = np.quantile(v, 1 - tau), np.quantile(v, tau)
        alpha = np.abs(np.clip(v, low, high)).mean(1)
    else:
        high = -np.abs(v).mean() * math.log(2 - 2 * tau)
        low, alpha = -high, np.array([0.7, 0.2])
        layer.alpha.data[:] = torch.from_numpy(alpha)
    inputs = torch.from_numpy(a).requires_grad_()
    layer(inputs).sum().backward()
    # d o / d v is alpha sign(a) between the quantiles; then the chain rule of v = (w - mean) / std
    to_v = alpha[:, None] * np.sign(a).sum(0) * ((v >= low) & (v <= high))
    unit = v / spread
    to_w = (
        (to_v - to_v.mean(1, keepdims=True) - unit * (to_v * unit).sum(1, keepdims=True) / 39) * spread / std
    )
    np.testing.assert_allclose(linear.weight.grad.numpy(), to_w, rtol=1e-6, atol=1e-9)  # type: ignore[union-attr]
    if variant == "paper":
        poly = np.where(np.abs(a) <= 1, 2 - 2 * np.abs(a), 0)  # eq. 29
        np.testing.assert_allclose(inputs.grad.numpy(), poly * (alpha @ np.sign(v)))  # type: ignore[union-attr]


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("algorithm", [name for name in trainers.list_algorithms() if name != "fp32"])
def test_gradients_in_evaluation_by_sample_and_in_one_compiled_graph(algorithm: str, variant: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softsign(), nn.Flatten(), nn.Linear(16, 3))
    model = trainers.binarize(model, algorithm, variant, keep=[])
    x = torch.randn(3, 2, 4, 4)
    state = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(parameters: Any, sample: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, (parameters, state[1]), (sample[None],)).square().sum()

    for training in (True, False):
        model.train(training).zero_grad()
        model(x[1:2]).square().sum().backward()
        by_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(state[0], x)
        learned = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert {"0.weight", "3.weight"} <= set(learned)
        assert learned["0.weight"].abs().sum() > 0
        for name, gradient in learned.items():
            torch.testing.assert_close(by_sample[name][1], gradient, rtol=1e-4, atol=1e-4)

    graphs = []
    torch._dynamo.reset()
    compiled = torch.compile(
        model.train(), fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward
    )
    for progress in (0.0, 0.2, 0.6, 1.0):  # moves tau, n and kappa
        trainers.set_progress(model, progress, 5)
        torch.testing.assert_close(compiled(x), model(x))
    assert len(graphs) == 1


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("algorithm", [name for name in trainers.list_algorithms() if name != "fp32"])
def test_every_parameter_learns(algorithm: str, variant: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Hardtanh(), nn.Flatten(), nn.Linear(24, 3))
    model = trainers.binarize(model, algorithm, variant, keep=[]).train()
    model(torch.randn(5, 4, 4, 4)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_gradient_is_divided_by_a_scale_and_0_where_that_is_0() -> None:
    """A channel whose weights are all 0 has a scale of 0; what comes back there may not be NaN."""
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    scale = torch.tensor([[2.0], [0.0]])
    y = divide_gradient(x, scale)
    assert torch.equal(y, x)
    y.backward(torch.tensor([[1.0, 0.0, -4.0], [1.0, 0.0, -4.0]]))
    assert x.grad is not None and x.grad.tolist() == [[0.5, 0, -2], [0, 0, 0]]
