"""Weights are sums of signs where their values say so, and what is found adds up to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_passes.ir.subset_sums import codes_of, subset_sums
from relay_passes.ir.weight_planes import MANY_WEIGHT_PLANES, weight_planes


def added(planes):
    """The weights that planes stand for, float64."""
    total = 0.0
    for plane in planes:
        column = (-1, *[1] * (plane.signs.ndim - 1))
        total = total + np.where(plane.signs, 1.0, -1.0) * plane.alpha.astype(np.float64).reshape(column)
        total = total + (0.0 if plane.beta is None else plane.beta.reshape(column))
    return total


def sums_of_signs(rng, extents, count, per_channel, beta):
    column = (count, extents[0] if per_channel else 1, *[1] * (len(extents) - 1))
    # Far enough from each other that no two sums of them are one but for rounding.
    scales = (3.0 ** -np.arange(count)).reshape(-1, *[1] * len(extents)) * rng.uniform(0.7, 1, column)
    weights = (rng.choice([-1, 1], (count, *extents)) * scales).astype(np.float32).sum(0)
    return weights + np.float32(beta)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 3),
    per_channel=st.booleans(),
    beta=st.sampled_from([0.0, 0.3]),
)
def test_sums_of_signs_are_found_and_add_up(seed, count, per_channel, beta):
    rng = np.random.default_rng(seed)
    weights = sums_of_signs(rng, (3, 30, 3, 2), count, per_channel, beta)
    found = weight_planes(weights)
    assert found is not None and len(found.planes) == count and found.values <= 2**count
    assert found.moved < 1e-6 and all((plane.alpha >= 0).all() for plane in found.planes)
    np.testing.assert_allclose(added(found.planes), weights, rtol=0, atol=3e-7 * np.abs(weights).max())
    assert (found.planes[0].beta is None) == (beta == 0)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ((-1, 0, 1), 2),
        ((-1, -1 / 3, 1 / 3, 1), 2),
        ((0, 1, 2, 3), 2),
        (tuple(range(-4, 4)), 3),
        ((0, 1, 5), 2),
    ],
)
def test_weights_of_two_bits_and_of_three_values(values, count):
    weights = np.random.default_rng(0).choice(np.float32(values), (5, 200))
    found = weight_planes(weights)
    assert found is not None and len(found.planes) == count
    np.testing.assert_allclose(added(found.planes), weights, rtol=0, atol=1e-6)


def test_channels_differ_in_how_many_they_take():
    rng = np.random.default_rng(1)
    weights = sums_of_signs(rng, (5, 64, 3), 3, True, 0.0)
    weights[0] = rng.choice(np.float32([-0.5, 0.5]), (64, 3))
    weights[1] = 0.0
    weights[2] = -2.0
    weights[3] = rng.choice(np.float32([0.25, 1.0]), (64, 3))
    found = weight_planes(weights)
    assert found is not None and len(found.planes) == 3 and found.values == 8
    np.testing.assert_allclose(added(found.planes), weights, rtol=0, atol=1e-6)


def test_rounding_is_said():
    weights = sums_of_signs(np.random.default_rng(2), (4, 90), 2, True, 0.0)
    weights[1, ::2] *= np.float32(1 + 2e-6)
    found = weight_planes(weights)
    assert found is not None and len(found.planes) == 2 and 1e-7 < found.moved < 1e-5


def test_what_is_no_sum_of_signs():
    rng = np.random.default_rng(3)
    assert weight_planes(rng.normal(size=(4, 90)).astype("f4")) is None
    assert weight_planes(rng.choice(np.float32([0, 1, 3, 7, 20, 55, 148]), (4, 90))) is None
    weights = rng.choice(np.float32([-1, 1]), (4, 90))
    weights[3, 5] = np.nan
    assert weight_planes(weights) is None
    weights[3, 5] = np.inf
    assert weight_planes(weights) is None


def test_a_few_weights_are_numbers_and_no_sums():
    """Any three numbers are sums of two signs, and any four of three."""
    weights = np.random.default_rng(4).normal(size=(8, 3)).astype("f4")
    assert weight_planes(weights) is None
    assert weight_planes(np.tile(weights, 3)) is not None


@pytest.mark.parametrize(
    ("values", "scales"),
    [
        ((0, 1), (0.5,)),
        ((-1, 0, 1), (0.5, 0.5)),
        ((0, 1, 2, 3), (1, 0.5)),
        ((-3, -1, 2, 4), (2.5, 1)),
        ((0, 1, 2, 3, 4, 5, 6, 7), (2, 1, 0.5)),
        ((0, 1, 3, 7), (3.5, 3, 2)),
    ],
)
def test_values_are_sums_of_the_fewest_scales(values, scales):
    found = subset_sums(values, 3)
    assert found is not None and found[1] == scales
    np.testing.assert_array_equal(found[0] + codes_of(values, *found) @ np.array(scales), values)


def test_what_is_no_sum_of_three_scales():
    assert subset_sums((0, 1, 3, 7, 20), 3) is None
    assert subset_sums((0, 1, 3, 7, 20), MANY_WEIGHT_PLANES) is not None
