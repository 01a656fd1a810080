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
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.tiled import TiledTask
from schedules.targets.choose import ALL
from schedules.targets.few_channels import tile_of_few_channels
from schedules.targets.kernel_target import KernelTarget
from schedules.targets.x86_avx2 import X86_AVX2
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
        task = TiledTask(conv=conv, outputs=outputs_of(epilogue), planar=planar)
        tile = task.default(kernels)
        assert task.refusal(tile) is None
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


FEW = Convolution(2, 5, 6, 96, 3, (3, 3), padding=(1, 0, 1, 2))


@given(
    kernels=TARGETS,
    conv=convolutions(st.just(1)),
    channels=st.sampled_from([16, 48, 64]),
    out_channels=st.integers(1, 8),
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_few_output_channels(host, kernels, conv, channels, out_channels, seed):
    conv = replace(conv, channels=channels, out_channels=out_channels)
    check_float(host.of(kernels), kernels, conv, seed)


def test_few_output_channels_on_arm(arm):
    conv = replace(FEW, out_channels=2)
    assert tile_of_few_channels(conv, arm.kernels)
    check_float(arm, arm.kernels, conv, seed=0)


@pytest.mark.parametrize(
    ("conv", "depth"),
    [
        (FEW, 8),
        (replace(FEW, out_channels=4), 8),
        (replace(FEW, out_channels=5), None),  # of which a vector is fuller
        (replace(FEW, channels=4), None),  # 12 numbers of a run are no vectors
        (Convolution(1, 5, 5, 16, 1), None),  # two vectors, and as much to add up
        (replace(FEW, groups=3), 8),
    ],
)
def test_whose_vectors_hold_parts_of_a_sum(conv, depth):
    tile = tile_of_few_channels(conv, X86_AVX2)
    assert (tile and tile.depth) == depth


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
