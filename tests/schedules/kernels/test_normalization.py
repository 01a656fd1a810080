"""Rows normalized, as floats and as packed signs, against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.normalization import Normalization, normalization_kernel, normalization_reference
from schedules.parts.bits import Packing, unpack
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain

# Of a float32 mean of up to a few hundred numbers of size 100, in units of the deviation.
ERROR = 2e-5
SHAPES = st.lists(st.integers(1, 5), max_size=3).flatmap(
    lambda outer: st.integers(1, 70).map(lambda channels: (*outer, channels))
)


def numbers_of(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 20, shape).astype("float32")


def check(machine, shape: tuple[int, ...], seed: int, epsilon: float = 1e-5) -> None:
    x = numbers_of(shape, seed)
    kernel = normalization_kernel(Normalization(shape, epsilon), plain(shape, "float32"))
    [found] = machine.call(kernel, [x], [(shape, "float32")])
    np.testing.assert_allclose(found, normalization_reference(x, epsilon), rtol=ERROR, atol=ERROR)


@given(shape=SHAPES, seed=st.integers(0, 99), epsilon=st.sampled_from([1e-12, 1e-5, 3.0]))
@settings(deadline=None, max_examples=15)
def test_on_this_machine(host, shape, seed, epsilon):
    # Of one channel nothing is left but the rounding of its mean, which has no size to compare with.
    shape = (*shape[:-1], max(shape[-1], 2))
    check(host.some(seed), shape, seed, max(epsilon, 1e-5) if shape[-1] < 4 else epsilon)


@pytest.mark.parametrize("shape", [(2, 3, 77), (197, 24)], ids=str)
def test_on_arm(arm, shape):
    check(arm, shape, 1)


@pytest.mark.parametrize("channels", [64, 43])
def test_scaled_and_packed(host, channels):
    shape = (2, 3, 4, channels)
    x, scale = numbers_of(shape, 3), numbers_of((channels,), 4) - 50
    packing = Packing(channels, 32, 1, (1, 0, 2, 1))
    scaled = Step("relax.multiply", (SUM, Value("operand", 0)))
    above = Step("relax.greater_equal", (Value("step", 0), Value("number", number=0.0)))
    words_shape = packing.shape(*shape[:3])
    output = Output(Value("step", 1), words_shape, packing.dtype, packing)
    epilogue = Epilogue((((channels,), "float32"),), (scaled, above), (output,))
    kernel = normalization_kernel(Normalization(shape, 1e-5), epilogue)
    [words] = host.some(1).call(kernel, [x, scale], [(words_shape, packing.dtype)])
    right = normalization_reference(x, 1e-5) * scale
    clear = np.abs(right) > ERROR * np.abs(scale)
    np.testing.assert_array_equal(unpack(words, packing)[clear], (right >= 0)[clear])
    assert clear.mean() > 0.99


@pytest.mark.parametrize("channels", [30, 41, 61, 64])
def test_of_integers_what_equals_the_mean_is_zero(host, channels):
    """One part in so many is no float32."""
    x = np.random.default_rng(0).integers(-4, 15, (700, channels))
    at_mean = x * channels == x.sum(1, keepdims=True)
    kernel = normalization_kernel(Normalization(x.shape, 1e-5), plain(x.shape, "float32"))
    [found] = host.some(1).call(kernel, [x.astype("float32")], [(x.shape, "float32")])
    np.testing.assert_array_equal(found == 0, at_mean)
    assert at_mean.any()
