"""The forward of all algorithms against their formulas, and what is promised about it in words."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trainers
from tests.trainers import formulas
from trainers.operator import clip, sign

BINARY = [name for name in trainers.list_algorithms() if name != "fp32"]
VARIANTS = ["paper", "released"]


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


@st.composite
def transposed(draw: Any) -> tuple[nn.Module, torch.Tensor]:
    """A ConvTranspose1d or ConvTranspose2d of any kind with an input that it takes."""
    spatial, groups = draw(st.sampled_from([1, 2])), draw(st.integers(1, 3))

    def numbers(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(spatial))

    kernel, stride, dilation = numbers(1, 4), numbers(1, 3), numbers(1, 2)
    torch.manual_seed(draw(st.integers(0, 999)))
    layer = (nn.ConvTranspose1d if spatial == 1 else nn.ConvTranspose2d)(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride,
        numbers(0, 1),
        tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)),
        groups,
        draw(st.booleans()),
        dilation,
    )
    return layer, torch.randn(draw(st.integers(1, 2)), layer.in_channels, *numbers(4, 6))


def check_against_formula(layer: Any, x: torch.Tensor, algorithm: str, variant: str) -> None:
    formula = formulas.of(algorithm)
    if formulas.weights_of(layer)[0].size < formula.NEEDS:
        return
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
    expected = formula.forward(layer, variant, x.double().numpy(), learned)
    np.testing.assert_allclose(binary(x).detach().numpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
@given(case=convolutions())
@settings(max_examples=25, deadline=None)
def test_convolutions_are_their_formula(algorithm: str, variant: str, case: tuple[Any, torch.Tensor]) -> None:
    check_against_formula(*case, algorithm, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
@given(case=transposed())
@settings(max_examples=8, deadline=None)
def test_transposed_ones_are_their_formula(
    algorithm: str, variant: str, case: tuple[Any, torch.Tensor]
) -> None:
    check_against_formula(*case, algorithm, variant)


@pytest.mark.parametrize("algorithm", ["bnn", "xnor", "xnorpp"])
def test_a_transposed_one_takes_the_size_of_its_output(algorithm: str) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, 2, padding=1, groups=2)
    larger = nn.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=(1, 0), groups=2)
    larger.load_state_dict(layer.state_dict())
    x = torch.randn(1, 4, 5, 5)
    asked: Any = trainers.binarize(layer, algorithm).eval()
    expected = trainers.binarize(larger, algorithm).eval()(x)
    torch.testing.assert_close(asked(x, output_size=[10, 9]), expected)
    assert asked(x).shape == (1, 6, 9, 9)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 1), (2, 2), ((3, 1), (1, 3)), (3, 4)])
def test_k_of_xnor_with_more_padding_than_pooling_takes(kernel: Any, padding: Any, dilation: int) -> None:
    layer = nn.Conv2d(4, 4, kernel, padding=padding, dilation=dilation, groups=2)
    check_against_formula(layer, torch.randn(1, 4, 6, 5), "xnor", "paper")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7)])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
def test_linear_layers_are_their_formula(
    algorithm: str, variant: str, shape: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(1)
    check_against_formula(nn.Linear(7, 4, bias=bias), torch.randn(shape), algorithm, variant)


@pytest.mark.parametrize("algorithm", BINARY)
def test_a_sample_without_batch_is_taken(algorithm: str) -> None:
    x = torch.randn(4, 6, 6)
    layer = trainers.binarize(nn.Conv2d(4, 6, 3, padding=1, groups=2), algorithm).eval()
    torch.testing.assert_close(layer(x), layer(x[None])[0])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
def test_training_and_evaluation_compute_the_same_but_for_what_is_meant(algorithm: str, variant: str) -> None:
    x = torch.randn(2, 4, 6, 6)
    layer = trainers.binarize(nn.Conv2d(4, 6, 3, padding=1), algorithm, variant)
    same = torch.allclose(layer.train()(x), layer.eval()(x), rtol=1e-6, atol=1e-6)
    assert same == (variant not in formulas.of(algorithm).DIFFERS)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", BINARY)
def test_nan_shows_in_training(algorithm: str, variant: str) -> None:
    nan = torch.tensor(float("nan"))
    x = torch.randn(2, 64).index_put((torch.tensor(0), torch.tensor(3)), nan)
    layer: Any = trainers.binarize(nn.Linear(64, 4), algorithm, variant).train()
    assert layer(x)[0].isnan().all()
    assert not layer(x)[1].isnan().any()
    if not formulas.of(algorithm).NAN_STAYS:
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


@pytest.mark.parametrize("tie", [-1, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_signs_of_a_running_network_are_those_of_the_comparison_that_is_exported(
    dtype: torch.dtype, tie: int
) -> None:
    nan, inf, least = float("nan"), float("inf"), 2.0**-149
    values = torch.tensor([-inf, -1, -least, -0.0, 0.0, least, 1, inf, nan, 0.5, 0.25])
    x = torch.cartesian_prod(values, values)[:, 0].reshape(11, 11).to(dtype)
    for limit in (None, values.float(), -values.flip(0)):
        against = 0.0 if limit is None else limit
        expected = torch.where(x >= against if tie > 0 else x > against, 1.0, -1.0).to(dtype)
        computed = sign(x, clip, training=False, threshold=limit, tie=tie)
        assert computed.dtype == dtype and torch.equal(computed, expected)
