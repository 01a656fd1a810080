"""A binary layer whose weight a function reads: the layer's product, or a warning, and never float in
silence."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trainers
from trainers.operator import BinaryLayer


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


class Net(nn.Module):
    """Three linear layers, of which `use` computes the second on (N, 8)."""

    def __init__(self, use: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.use(torch.tanh(self.first(x)), self.middle))


@pytest.mark.parametrize("algorithm", ["bnn", "xnor", "reactnet", "recu", "fda"])
@pytest.mark.parametrize(
    "use",
    [
        _linear,
        lambda x, layer: F.linear(input=x, weight=layer.weight.to(x.dtype), bias=layer.bias),
        lambda x, layer: x @ layer.weight.t() + layer.bias,
        lambda x, layer: torch.matmul(x, layer.weight.data.T) + layer.bias,
        lambda x, layer: F.linear(x, getattr(layer, "weight")) + layer.bias,  # noqa: B009
    ],
)
def test_products_are_those_of_the_layer(use: Callable[[Tensor, Any], Tensor], algorithm: str) -> None:
    torch.manual_seed(0)
    net, x = trainers.binarize(Net(use), algorithm, keep=["last"]), torch.randn(5, 8)
    called: Any = copy.deepcopy(net)
    called.use = lambda x, layer: layer(x)
    for training in (True, False):
        expected = called.train(training)(x)
        torch.testing.assert_close(net.train(training)(x), expected)
        with torch.inference_mode():
            torch.testing.assert_close(net(x), expected)
    net.train().zero_grad()
    net(x).sum().backward()
    called.train()(x).sum().backward()
    torch.testing.assert_close(net.middle.weight.grad, called.middle.weight.grad)  # type: ignore[union-attr]


@pytest.mark.parametrize("spatial", [1, 2])
def test_convolutions_by_function(spatial: int) -> None:
    class Conv(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = (nn.Conv1d if spatial == 1 else nn.Conv2d)(4, 6, 3, 2, 1, 1, 2)

        def forward(self, x: Tensor, stride: int) -> Tensor:
            return (F.conv1d if spatial == 1 else F.conv2d)(
                x, self.conv.weight, self.conv.bias, stride, 1, 1, 2
            )

    net, x = trainers.binarize(Conv(), "xnor", keep=[]), torch.randn(2, 4, *[8] * spatial)
    assert isinstance(net.conv, BinaryLayer)
    torch.testing.assert_close(net(x, 2), net.conv(x))
    with pytest.warns(UserWarning, match="conv is read by conv.d and not by the layer"):
        net(x, 1)


@pytest.mark.parametrize("strict", [True, False])
def test_exported_and_compiled_too(strict: bool) -> None:
    net, x = trainers.binarize(Net(_linear), "reactnet", keep=["last"]).eval(), torch.randn(5, 8)
    with torch.no_grad():
        program = torch.export.export(net, (x,), strict=strict)
    assert [str(node.target) for node in program.graph.nodes].count("aten.where.Scalar") == 4
    assert torch.equal(program.module()(x), net(x))
    assert torch.equal(torch.compile(net, fullgraph=True, backend="eager")(x), net(x))


@pytest.mark.parametrize(
    "use",
    [
        lambda x, layer: torch.einsum("ni,oi->no", x, layer.weight),
        lambda x, layer: torch.addmm(layer.bias, x, layer.weight.t()),
        lambda x, layer: F.linear(x, layer.weight - layer.weight.mean()),
    ],
)
def test_what_the_layer_does_not_compute_is_said(use: Callable[[Tensor, Any], Tensor]) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        net = trainers.binarize(Net(use), "bnn", keep=["last"])
        net(torch.randn(5, 8))
    assert any("middle" in str(warning.message) for warning in said)


def test_outside_of_a_forward_it_is_the_parameter() -> None:
    net = trainers.binarize(Net(_linear), "bnn", keep=["last"])
    layer: Any = net.middle
    assert layer.weight is dict(net.named_parameters())["middle.weight"]
    nn.init.ones_(layer.weight)
    net(torch.randn(5, 8)).sum().backward()
    assert type(layer.weight) is nn.Parameter
    assert layer.weight.grad is not None


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_fused_transformer_calls_the_layers(activation: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, activation, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(16, 3))
    with pytest.warns(
        UserWarning, match=r"0.layers.1.self_attn: its projections .* 0.layers.1.self_attn.out_proj"
    ):
        model = trainers.binarize(model, "bnn").eval()
    x, mask = torch.randn(3, 5, 16), torch.tensor([[False] * 4 + [True]] * 3)
    binary = [module for module in model.modules() if isinstance(module, BinaryLayer)]
    assert len(binary) == 4
    calls: list[nn.Module] = []
    expected, masked = model(x), model[0](x, src_key_padding_mask=mask)  # type: ignore[index]
    for network in (model, copy.deepcopy(model)):
        with torch.no_grad():
            torch.testing.assert_close(network(x), expected)
            torch.testing.assert_close(network[0](x, src_key_padding_mask=mask)[:, :4], masked[:, :4])
    for module in binary:
        module.register_forward_hook(lambda module, args, result: calls.append(module))
    with torch.inference_mode():
        model(x)
    assert calls == binary
