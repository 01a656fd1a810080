"""Softmax of rows, as floats and as packed truths, against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.softmax import Softmax, softmax_kernel, softmax_reference
from schedules.parts.bits import Packing, unpack
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain

ERROR = 1e-6  # relative
SHAPES = st.lists(st.integers(1, 5), max_size=3).flatmap(
    lambda outer: st.integers(1, 90).map(lambda channels: (*outer, channels))
)


def check(machine, shape: tuple[int, ...], seed: int, size: float) -> None:
    x = (np.random.default_rng(seed).normal(0, 1, shape) * size).astype("float32")
    [found] = machine.call(softmax_kernel(Softmax(shape), plain(shape, "float32")), [x], [(shape, "float32")])
    np.testing.assert_allclose(found, softmax_reference(x), rtol=ERROR * max(1, size), atol=1e-37)


@given(shape=SHAPES, seed=st.integers(0, 99), size=st.sampled_from([0.1, 3.0, 40.0]))
@settings(deadline=None, max_examples=20)
def test_on_this_machine(host, shape, seed, size):
    check(host.some(seed), shape, seed, size)


@pytest.mark.parametrize("shape", [(3, 1000), (2, 5000)], ids=str)
def test_long_rows(host, shape):
    check(host.some(0), shape, 0, 1.0)


@pytest.mark.parametrize("shape", [(2, 3, 77), (19, 24)], ids=str)
def test_on_arm(arm, shape):
    check(arm, shape, 1, 2.0)


def test_what_is_masked_is_nothing(host):
    """As in attention, where -infinity stands for what may not be read."""
    x = np.array([[1, -np.inf, 2, -np.inf, 0], [-1e30, 3, -np.inf, -1e30, 3]], "float32")
    [found] = host.some(0).call(
        softmax_kernel(Softmax(x.shape), plain(x.shape, "float32")), [x], [(x.shape, "float32")]
    )
    np.testing.assert_allclose(found, softmax_reference(x), rtol=ERROR)


@pytest.mark.parametrize("keys", [64, 43])
def test_thresholds_are_packed(host, keys):
    """As in attention of truths."""
    shape = (1, 3, 8, keys)
    x = np.random.default_rng(3).normal(0, 2, shape).astype("float32")
    packing = Packing(keys, 32, 1, (0, 0, 0, 0))
    above = Step("relax.greater", (SUM, Value("number", number=0.02)))
    words_shape = packing.shape(*shape[:3])
    output = Output(Value("step", 0), words_shape, packing.dtype, packing)
    kernel = softmax_kernel(Softmax(shape), Epilogue((), (above,), (output,)))
    [words] = host.some(1).call(kernel, [x], [(words_shape, packing.dtype)])
    right = softmax_reference(x)
    clear = np.abs(right - 0.02) > ERROR
    np.testing.assert_array_equal(unpack(words, packing)[clear], (right > 0.02)[clear])
    assert clear.mean() > 0.99
