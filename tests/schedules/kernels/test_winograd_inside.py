"""Winograd's method for layers inside a network, against the plain reference and the direct kernel."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels import winograd_inside
from schedules.kernels.convolution import convolution_reference, float_convolution
from schedules.kernels.winograd_inside import is_faster, transform_weights
from schedules.parts.bits import Packing, pack
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain
from schedules.parts.weights import lay_out
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget
from schedules.targets.x86_avx2 import X86_AVX2

SEED = st.integers(0, 2**32 - 1)
PADDED = (1, 1, 1, 1)


def layers() -> st.SearchStrategy[Convolution]:
    return st.builds(
        Convolution,
        batch=st.integers(1, 2),
        height=st.integers(3, 12),
        width=st.integers(3, 20),
        channels=st.sampled_from([1, 5, 8, 20, 32, 37]),
        out_channels=st.sampled_from([1, 3, 8, 20, 32, 40, 70]),
        kernel=st.just((3, 3)),
        padding=st.tuples(*[st.integers(0, 3)] * 4),
    )


def numbers(conv: Convolution, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations [N, H, W, C] and weights [O, 3, 3, C]."""
    rng = np.random.default_rng(seed)
    activations = rng.standard_normal((conv.batch, conv.height, conv.width, conv.channels))
    weights = rng.standard_normal((conv.out_channels, 3, 3, conv.channels))
    return activations.astype("float32"), weights.astype("float32")


def run(
    machine, kernels: KernelTarget, conv: Convolution, epilogue: Epilogue, x, weights, method: str = "ours"
) -> list[np.ndarray]:
    specs = [(o.shape, o.dtype) for o in epilogue.outputs]
    if method == "direct":
        tile = kernels.float_tile(conv)
        kernel = float_convolution(conv, x.shape, tile, kernels, epilogue)
        return machine.call(kernel, [x, lay_out(weights, 1, tile)], specs)
    tile = kernels.winograd_tile(replace(conv, channels=64))
    kernel = winograd_inside.winograd_inside(conv, tile, kernels, epilogue)
    return machine.call(kernel, [x, lay_out(transform_weights(weights), 1, tile)], specs)


def check(machine, kernels: KernelTarget, conv: Convolution, seed: int) -> None:
    x, weights = numbers(conv, seed)
    epilogue = plain(conv.out_shape, "float32")
    [ours], [direct] = (run(machine, kernels, conv, epilogue, x, weights, m) for m in ("ours", "direct"))
    scale = np.abs(direct).max()
    np.testing.assert_allclose(ours, direct, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(ours, convolution_reference(x, weights, conv), rtol=0, atol=1e-5 * scale)


@given(kernels=st.sampled_from(ALL), conv=layers(), seed=SEED)
@settings(deadline=None, max_examples=40)
def test_computes_what_the_direct_kernel_does(host, kernels, conv, seed):
    check(host.of(kernels), kernels, conv, seed)


def test_several_bands_the_last_of_which_overlaps(host, monkeypatch):
    conv = Convolution(2, 13, 10, 16, 24, (3, 3), padding=PADDED)
    monkeypatch.setattr(winograd_inside, "BAND_BYTES", 4 * 24 * 3 * (16 + 24) * 3)  # 3 of 7 rows
    check(host, host.kernels, conv, seed=0)


@pytest.mark.parametrize(
    "conv",
    [
        Convolution(1, 6, 10, 20, 24, (3, 3), padding=PADDED),
        Convolution(2, 5, 9, 16, 33, (3, 3), padding=(0, 2, 1, 0)),
    ],
    ids=str,
)
def test_on_arm(arm, conv):
    check(arm, arm.kernels, conv, seed=0)


@pytest.mark.parametrize("kernels", ALL, ids=lambda k: k.name)
def test_numbers_and_packed_truth_at_once(host, kernels):
    """Behind a residual; on small integers, whose sums are exact but for the transformations."""
    conv = Convolution(1, 9, 13, 24, 80, (3, 3), padding=PADDED)
    rng = np.random.default_rng(1)
    x = rng.integers(-8, 9, (1, 9, 13, 24)).astype("float32")
    weights = rng.integers(-8, 9, (80, 3, 3, 24)).astype("float32")
    packing = Packing(80, kernels.word, halo=(1, 0, 2, 1))
    half = Value("number", number=0.5, dtype="float32")
    epilogue = Epilogue(
        (),
        (Step("relax.greater_equal", (SUM, half)),),
        (
            Output(SUM, conv.out_shape, "float32"),
            Output(Value("step", 0), packing.shape(*conv.out_shape[:3]), packing.dtype, packing),
        ),
    )
    sums, words = run(host.of(kernels), kernels, conv, epilogue, x, weights)
    expected = convolution_reference(x, weights, conv)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=0.1)
    np.testing.assert_array_equal(words, pack(expected > 0, packing))


def test_rounds_at_most_twice_as_coarsely_as_the_direct_kernel(host):
    conv = Convolution(1, 24, 24, 128, 64, (3, 3), padding=PADDED)
    x, weights = numbers(conv, seed=0)
    epilogue = plain(conv.out_shape, "float32")
    exact = convolution_reference(x.astype("float64"), weights.astype("float64") * 2.0**20, conv)
    errors = []
    for method in ("ours", "direct"):
        [sums] = run(host, host.kernels, conv, epilogue, x, weights, method)
        errors.append(np.sqrt(np.mean((sums - exact / 2.0**20) ** 2)))
    ours, direct = errors
    assert ours <= 2 * direct


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"out_channels": 20}, True),
        ({"kernel": (1, 1), "padding": (0,) * 4}, False),
        ({"kernel": (5, 5)}, False),
        ({"strides": (2, 2)}, False),
        ({"dilation": (2, 2)}, False),
        ({"groups": 2}, False),
        ({"channels": 2, "out_channels": 2}, False),  # the transformations take more than is saved
        ({"height": 4, "width": 4, "channels": 512, "out_channels": 512}, False),  # and so do the weights
    ],
    ids=str,
)
def test_is_used_where_it_is_faster(changed, expected):
    conv = Convolution(1, 38, 38, 64, 64, (3, 3), padding=PADDED)
    assert is_faster(replace(conv, **changed), X86_AVX2) == expected
