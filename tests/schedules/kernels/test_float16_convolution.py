"""Convolution in float16 under QEMU, against sums in float64: in what order it adds up is not told."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels.convolution import convolution_reference, float_convolution
from schedules.parts.epilogue import plain
from schedules.parts.sums import IN_HALF
from schedules.parts.weights import lay_out
from schedules.targets.choose import kernel_target
from tests.schedules.kernels.convolutions import SEED, convolutions

UNIT = 2.0**-11  # the most that float16 rounds, relative to what is rounded
SMALLEST = 2.0**-25  # and where the result is subnormal


def computed(machine, conv: Convolution, x: np.ndarray, weights: np.ndarray, planar: bool) -> np.ndarray:
    kernels = machine.kernels
    tile = kernels.half_tile(conv)
    read, taps = (a.transpose(0, 3, 1, 2) if planar else a for a in (x, weights))
    epilogue = plain(conv.out_shape, "float32")
    kernel = float_convolution(conv, read.shape, tile, kernels, epilogue, planar=planar, half=True)
    laid_out = lay_out(taps.astype(np.float16), conv.groups, tile)
    [sums] = machine.call(kernel, [read, laid_out], [(conv.out_shape, "float32")])
    return sums


def random(conv: Convolution, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(conv.batch, conv.height, conv.width, conv.channels))
    weights = rng.normal(size=(conv.out_channels, *conv.kernel, conv.channels // conv.groups))
    return x.astype("f4"), weights.astype("f4")


def check(machine, conv: Convolution, seed: int, planar: bool = False) -> None:
    """A sum of n products, each of two rounded factors, rounds n + 2 times at most."""
    x, weights = random(conv, seed)
    sums = computed(machine, conv, x, weights, planar)
    exact = convolution_reference(x.astype("f8"), weights.astype("f8"), conv)
    magnitudes = convolution_reference(np.abs(x), np.abs(weights), conv)
    rounded = min(conv.products, IN_HALF) + 2
    bound = rounded * UNIT / (1 - rounded * UNIT) * magnitudes + conv.products * 8 * SMALLEST
    assert (np.abs(sums - exact) <= bound + 1e-5 * magnitudes).all()
    # Whole numbers, of which the sum of IN_HALF products is exact in float16.
    x, weights = (np.clip(np.rint(2 * a), -5, 5) for a in (x, weights))
    np.testing.assert_array_equal(
        computed(machine, conv, x, weights, planar), convolution_reference(x, weights, conv)
    )


EMULATED = settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.too_slow])


@given(conv=convolutions(), seed=SEED)
@example(conv=Convolution(1, 4, 9, 130, 33, (3, 3), padding=(1, 1, 1, 1)), seed=0)  # runs longer than IN_HALF
@example(conv=Convolution(1, 1, 1, 512, 70), seed=1)
@EMULATED
def test_float16(arm64_half, conv, seed):
    check(arm64_half, conv, seed)


@given(conv=convolutions(st.just(1)), channels=st.integers(1, 4), seed=SEED)
@EMULATED
def test_float16_plane_by_plane(arm64_half, conv, channels, seed):
    conv = replace(conv, channels=channels, dilation=(conv.dilation[0], 1))
    check(arm64_half, conv, seed, planar=True)


@pytest.mark.parametrize("features", [["neon"], ["neon", "dotprod"]])
def test_a_core_without_it_has_no_tile(features):
    assert kernel_target("aarch64-linux-gnu", features).half_tile is None
    assert kernel_target("x86_64-linux-gnu", ["avx2", "fullfp16"]).half_tile is None
