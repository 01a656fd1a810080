"""Float convolution against its plain reference."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.kernels.convolution import (
    binary_convolution_reference,
    float_convolution,
)
from schedules.parts.epilogue import plain
from schedules.parts.weights import lay_out
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget
from tests.schedules.kernels.convolutions import (
    FIXED,
    SEED,
    TARGETS,
    convolutions,
    depthwise_convolutions,
)


def check_float(machine, kernels: KernelTarget, conv: Convolution, seed: int, planar: bool = False) -> None:
    """On small integers, of which every sum is exact in any order. planar: activations [N, C, H, W]."""
    rng = np.random.default_rng(seed)
    shape = (conv.batch, conv.height, conv.width, conv.channels)
    activations = rng.integers(-8, 9, shape).astype("float32")
    weights = rng.integers(-8, 9, (conv.out_channels, *conv.kernel, conv.channels // conv.groups)).astype(
        "float32"
    )
    epilogue = plain(conv.out_shape, "float32")
    if depthwise.is_depthwise(conv, packed=False):
        strip = depthwise.default_strip(conv, None, kernels)
        kernel = depthwise.depthwise_convolution(conv, None, epilogue, ending="dot", strip=strip)
        laid_out = depthwise.in_tap_order(weights)
        [sums] = machine.call(kernel, [activations, laid_out], [(conv.out_shape, "float32")])
    else:
        tile = kernels.float_tile(conv)
        read = activations.transpose(0, 3, 1, 2) if planar else activations
        kernel = float_convolution(conv, read.shape, tile, kernels, epilogue, planar=planar)
        laid_out = lay_out(weights.transpose(0, 3, 1, 2) if planar else weights, conv.groups, tile)
        [sums] = machine.call(kernel, [read, laid_out], [(conv.out_shape, "float32")])
    np.testing.assert_array_equal(sums, binary_convolution_reference(activations, weights, conv))


@given(kernels=TARGETS, conv=convolutions(), seed=SEED)
@settings(deadline=None, max_examples=50)
def test_float(host, kernels, conv, seed):
    check_float(host.of(kernels), kernels, conv, seed)


@given(kernels=TARGETS, conv=convolutions(st.just(1)), channels=st.integers(1, 4), seed=SEED)
@settings(deadline=None, max_examples=30)
def test_float_plane_by_plane(host, kernels, conv, channels, seed):
    conv = replace(conv, channels=channels, dilation=(conv.dilation[0], 1))
    check_float(host.of(kernels), kernels, conv, seed, planar=True)


WIDE = Convolution(2, 5, 41, 24, 24, (3, 3), padding=(1, 1, 1, 1), groups=24)


@given(kernels=TARGETS, conv=depthwise_convolutions(st.just(1)), seed=SEED)
@example(kernels=ALL[0], conv=WIDE, seed=0)
@example(kernels=ALL[0], conv=replace(WIDE, strides=(2, 2)), seed=0)
@example(kernels=ALL[0], conv=replace(WIDE, padding=(9, 9, 9, 9), dilation=(9, 9)), seed=0)
@settings(deadline=None, max_examples=25)
def test_float_depthwise(host, kernels, conv, seed):
    check_float(host.of(kernels), kernels, conv, seed)


@pytest.mark.parametrize("conv", FIXED, ids=str)
def test_float_on_arm(arm, conv):
    check_float(arm, arm.kernels, conv, seed=0)
