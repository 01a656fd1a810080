"""The gradients of all algorithms against their formulas, and in every way that PyTorch takes them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainers
from tests.trainers import formulas
from trainers.operator import divide_gradient

BINARY = [name for name in trainers.list_algorithms() if name != "fp32"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("algorithm", BINARY)
def test_a_linear_layer_has_the_gradients_of_its_formula(algorithm: str, variant: str, seed: int) -> None:
    """In 64ths, so that what is at a boundary is there exactly: at 0, at 1 and -1, and at the threshold."""
    generator = np.random.default_rng(seed)
    half = generator.integers(-90, 91, (2, 20)) / 64
    w = np.concatenate([half, -half], axis=1)  # centred already
    w[:, [0, 20]], w[:, [1, 21]] = (1, -1), (-1, 1)
    a = generator.integers(-90, 91, (3, 40)) / 64
    a[:, :4] = 1, -1, 0, 0.5
    linear = nn.Linear(40, 2, bias=False).double()
    linear.weight.data[:] = torch.from_numpy(w)
    layer: Any = trainers.binarize(linear, algorithm, variant).train()
    learned = {name: p for name, p in layer.named_parameters() if name != "weight"}
    for parameter in learned.values():
        parameter.data[:] = torch.from_numpy(generator.integers(1, 40, parameter.shape) / 64)
        parameter.data.view(-1)[3:4] = 0.5  # what a threshold has its fourth activations at
    x = torch.from_numpy(a).requires_grad_()
    layer(x).sum().backward()
    to_a, to_w = formulas.of(algorithm).gradients(
        w, a, variant, {k: p.detach().numpy() for k, p in learned.items()}
    )
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), to_a, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.weight.grad.numpy(), to_w, rtol=1e-9, atol=1e-9)
    assert np.abs(to_w).max() > 0.01


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("algorithm", BINARY)
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
@pytest.mark.parametrize("algorithm", BINARY)
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
