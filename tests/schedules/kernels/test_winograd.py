"""Winograd's convolution: its matrices exactly, its kernels against the plain reference, and its rounding."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution_reference, float_convolution
from schedules.kernels.winograd import (
    MOST_TAPS,
    OUTPUTS,
    saves_products,
    taps_of,
    transform_weights,
    winograd_convolution,
)
from schedules.parts.bits import Packing, pack
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain
from schedules.parts.toom_cook import matrices
from schedules.parts.weights import lay_out
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget

SEED = st.integers(0, 2**32 - 1)
STEM = Convolution(1, 224, 224, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3))


@given(data=st.data(), taps=st.integers(1, MOST_TAPS), outputs=st.sampled_from([1, 2, 3, OUTPUTS]))
@settings(deadline=None)
def test_the_matrices_are_exact(data, taps, outputs):
    """A^T [(G g) * (B^T x)] is the sum of products that defines y."""
    output, kernel, values = (np.asarray(matrix) for matrix in matrices(taps, outputs))
    numbers = st.fractions(-9, 9, max_denominator=9)
    g = np.asarray(data.draw(st.lists(numbers, min_size=taps, max_size=taps)), Fraction)
    extent = outputs + taps - 1
    x = np.asarray(data.draw(st.lists(numbers, min_size=extent, max_size=extent)), Fraction)
    expected = [sum(g[k] * x[j + k] for k in range(taps)) for j in range(outputs)]
    assert (output @ ((kernel @ g) * (values @ x))).tolist() == expected


@st.composite
def stems(draw: st.DrawFn) -> Convolution:
    conv = Convolution(
        batch=draw(st.integers(1, 2)),
        height=draw(st.integers(1, 20)),
        width=draw(st.integers(1, 40)),
        channels=draw(st.integers(1, 4)),
        out_channels=draw(st.sampled_from([1, 3, 8, 20, 32, 40, 64, 70])),
        kernel=(draw(st.integers(1, 7)), draw(st.integers(1, 11))),
        strides=draw(st.tuples(st.integers(1, 3), st.integers(1, 4))),
        padding=draw(st.tuples(*[st.integers(0, 5)] * 4)),
        dilation=(draw(st.integers(1, 2)), 1),
    )
    assume(conv.out_height > 0 and conv.out_width > 0 and taps_of(conv) <= MOST_TAPS)
    return conv


def integers(conv: Convolution, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations [N, C, H, W] and weights [O, C, KH, KW]; their sums are exact in float32."""
    rng = np.random.default_rng(seed)
    activations = rng.integers(-8, 9, (conv.batch, conv.channels, conv.height, conv.width))
    weights = rng.integers(-8, 9, (conv.out_channels, conv.channels, *conv.kernel))
    return activations.astype("float32"), weights.astype("float32")


def expected_sums(activations: np.ndarray, weights: np.ndarray, conv: Convolution) -> np.ndarray:
    return binary_convolution_reference(np.moveaxis(activations, 1, -1), np.moveaxis(weights, 1, -1), conv)


def run(
    machine, kernels: KernelTarget, conv: Convolution, epilogue: Epilogue, x, weights
) -> list[np.ndarray]:
    tile = kernels.winograd_tile(conv)
    kernel = winograd_convolution(conv, tile, kernels, epilogue)
    laid_out = lay_out(transform_weights(weights, conv), 1, tile)
    return machine.call(kernel, [x, laid_out], [(o.shape, o.dtype) for o in epilogue.outputs])


def check(machine, kernels: KernelTarget, conv: Convolution, seed: int) -> None:
    activations, weights = integers(conv, seed)
    [sums] = run(machine, kernels, conv, plain(conv.out_shape, "float32"), activations, weights)
    expected = expected_sums(activations, weights, conv)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-6 * 64 * conv.products)


@given(kernels=st.sampled_from(ALL), conv=stems(), seed=SEED)
@settings(deadline=None, max_examples=60)
def test_winograd(host, kernels, conv, seed):
    assume(kernels.winograd_tile(conv) is not None)
    check(host.of(kernels), kernels, conv, seed)


FIXED = [
    replace(STEM, height=19, width=23, padding=(3, 2, 3, 4)),
    Convolution(2, 5, 9, 3, 40, (3, 3), padding=(1, 1, 1, 1)),
    Convolution(1, 7, 50, 1, 8, (2, 11), (1, 4), (0, 2, 0, 2), (3, 1)),
]


@pytest.mark.parametrize("conv", FIXED, ids=str)
def test_winograd_on_arm(arm, conv):
    check(arm, arm.kernels, conv, seed=0)


@pytest.mark.parametrize("kernels", ALL, ids=lambda k: k.name)
@pytest.mark.parametrize("method", ["winograd", "direct"])
@pytest.mark.parametrize("channels", [16, 64, 80])
def test_numbers_and_packed_truth_at_once(host, kernels, method, channels):
    """The blocks of a float kernel begin at words, in the words that its target packs."""
    conv = Convolution(1, 9, 13, 3, channels, (7, 7), (2, 2), (3, 3, 3, 3))
    activations, weights = integers(conv, seed=1)
    packing = Packing(channels, kernels.word, halo=(1, 0, 2, 1))
    half = Value("number", number=0.5, dtype="float32")
    epilogue = Epilogue(
        (),
        (Step("relax.greater_equal", (SUM, half)),),
        (
            Output(SUM, conv.out_shape, "float32"),
            Output(Value("step", 0), packing.shape(*conv.out_shape[:3]), packing.dtype, packing),
        ),
    )
    if method == "winograd":
        sums, words = run(host.of(kernels), kernels, conv, epilogue, activations, weights)
    else:
        tile = kernels.float_tile(conv)
        kernel = float_convolution(conv, activations.shape, tile, kernels, epilogue, planar=True)
        specs = [(o.shape, o.dtype) for o in epilogue.outputs]
        sums, words = host.of(kernels).call(kernel, [activations, lay_out(weights, 1, tile)], specs)
    expected = expected_sums(activations, weights, conv)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=0.1)
    np.testing.assert_array_equal(words, pack(expected > 0, packing))


@pytest.mark.parametrize(
    "conv",
    [
        replace(STEM, height=32, width=64),
        Convolution(1, 32, 32, 3, 64, (3, 3), padding=(1, 1, 1, 1)),
        Convolution(1, 32, 32, 3, 64, (5, 5), padding=(2, 2, 2, 2)),
    ],
    ids=str,
)
def test_rounds_at_most_four_times_as_coarsely_as_the_direct_kernel(host, conv):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, conv.channels, conv.height, conv.width))
    weights = rng.standard_normal((conv.out_channels, conv.channels, *conv.kernel))
    x, weights = x.astype("float32"), weights.astype("float32")
    epilogue = plain(conv.out_shape, "float32")
    [ours] = run(host, host.kernels, conv, epilogue, x, weights)
    tile = host.kernels.float_tile(conv)
    kernel = float_convolution(conv, x.shape, tile, host.kernels, epilogue, planar=True)
    [direct] = host.call(kernel, [x, lay_out(weights, 1, tile)], [(conv.out_shape, "float32")])

    padded = np.pad(x[0].astype("float64"), ((0, 0), (conv.padding[0],) * 2, (conv.padding[1],) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, conv.kernel, (1, 2))
    seen = windows[:, :: conv.strides[0], :: conv.strides[1]]
    exact = np.einsum("cyxij,ocij->yxo", seen, weights.astype("float64"))
    error, least = (np.sqrt(np.mean((sums[0] - exact) ** 2)) for sums in (ours, direct))
    assert error <= 4 * least


@pytest.mark.parametrize(
    ("kernel", "strides", "width", "expected"),
    [
        ((7, 7), (2, 2), 224, True),
        ((3, 3), (1, 1), 32, True),
        ((3, 3), (1, 1), 5, False),
        ((7, 7), (4, 4), 128, True),
        ((11, 11), (4, 4), 224, True),
        ((3, 3), (2, 2), 224, False),
        ((7, 7), (1, 1), 224, False),
        ((1, 1), (1, 1), 224, False),
    ],
)
def test_is_used_where_it_saves_products(kernel, strides, width, expected):
    pad = kernel[0] // 2
    assert saves_products(Convolution(1, 32, width, 3, 64, kernel, strides, (pad,) * 4)) == expected
