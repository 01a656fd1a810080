"""Layers of one pixel after an average, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels.convolution import convolution_reference
from schedules.kernels.gate import PixelLayer, gate_kernel, is_of_one_pixel
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value
from schedules.parts.weights import lay_out

CHAINS = st.tuples(
    st.lists(st.integers(1, 9), min_size=0, max_size=2),
    st.lists(st.integers(1, 90), min_size=2, max_size=4),
)


def epilogue(channels: int) -> Epilogue:
    """A bias, then relu."""
    steps = (
        Step("relax.add", (SUM, Value("operand", 0))),
        Step("relax.nn.relu", (Value("step", 0),)),
    )
    output = Output(Value("step", 1), (1, 1, 1, channels), "float32")
    return Epilogue((((channels,), "float32"),), steps, (output,))


def check(machine, pixels: list[int], channels: list[int]) -> None:
    """pixels: extents of the image; channels: of it, and what each layer gives."""
    numbers = np.random.default_rng(sum(channels))
    shape = (1, *pixels, channels[0])
    image = numbers.normal(size=shape).astype("float32")
    layers, arguments = [], [image]
    expected = image.reshape(-1, channels[0]).mean(0).reshape(1, 1, 1, -1)
    for before, after in zip(channels, channels[1:], strict=False):
        conv = Convolution(1, 1, 1, before, after)
        layer = PixelLayer(conv=conv, tile=machine.kernels.float_tile(conv), epilogue=epilogue(after))
        weights = numbers.normal(size=(after, 1, 1, before)).astype("float32")
        bias = numbers.normal(size=after).astype("float32")
        layers.append(layer)
        arguments += [lay_out(weights, 1, layer.tile), bias]
        [expected] = layer.epilogue.evaluate(convolution_reference(expected, weights, conv), [bias])
    kernel = gate_kernel(shape, layers, machine.kernels)
    [found] = machine.call(kernel, arguments, [(expected.shape, "float32")])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max() + 1e-6)


@given(chain=CHAINS)
@settings(deadline=None, max_examples=25)
def test_on_this_machine(host, chain):
    pixels, channels = chain
    check(host.some(sum(channels)), pixels, channels)


@pytest.mark.parametrize("pixels", [[], [5, 7]], ids=str)
def test_on_arm(arm, pixels):
    check(arm, pixels, [48, 6, 48])


def test_which_layers_it_takes():
    assert is_of_one_pixel(Convolution(1, 1, 1, 64, 8))
    assert not is_of_one_pixel(Convolution(1, 1, 2, 64, 8))
    assert not is_of_one_pixel(Convolution(2, 1, 1, 64, 8))
    assert not is_of_one_pixel(Convolution(1, 1, 1, 64, 8, groups=8))
    assert not is_of_one_pixel(Convolution(1, 1, 1, 64, 8, kernel=(3, 3), padding=(1, 1, 1, 1)))
    assert not is_of_one_pixel(Convolution(1, 1, 1, 512, 1000))
