"""Kernels that multiply and have their weights in bits against their plain reference."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.kernels.convolution import (
    binary_convolution_reference,
    bytes_after,
    convolution_reference,
    float_convolution,
    int8_code,
    int8_convolution,
)
from schedules.parts.bit_weights import FLOATS, store_in_bits
from schedules.parts.bits import Packing
from schedules.parts.epilogue import SUM, Epilogue, Output, plain
from schedules.parts.quantizer import Quantizer
from schedules.parts.weights import offsets
from tests.schedules.kernels.convolutions import FIXED, SEED, TARGETS, convolutions
from tests.schedules.kernels.test_int8_convolution import dot_products, quantized


def two_levels(conv: Convolution, seed: int, most: int, dtype: str) -> tuple[np.ndarray, ...]:
    """(bool [O, KH, KW, C / groups], low [O], high [O], the weights)."""
    rng = np.random.default_rng(seed)
    higher = rng.random((conv.out_channels, *conv.kernel, conv.channels // conv.groups)) < 0.5
    low, high = np.sort(rng.integers(-most, most + 1, (2, conv.out_channels)), 0).astype(dtype)
    return higher, low, high, np.where(higher, *(v[:, None, None, None] for v in (high, low)))


def check_float(machine, kernels, conv: Convolution, seed: int, layout: str) -> None:
    """On small integers, of which every sum is exact in any order."""
    rng = np.random.default_rng(seed)
    activations = rng.integers(-8, 9, (conv.batch, conv.height, conv.width, conv.channels)).astype("float32")
    higher, low, high, weights = two_levels(conv, seed, 8, "float32")
    planar, writes_planes = layout == "reads planes", layout == "writes planes"
    read, taps = (v.transpose(0, 3, 1, 2) if planar else v for v in (activations, higher))
    tile = kernels.float_tile(conv)
    n, y, x, c = conv.out_shape
    shape = (n, c, y, x) if writes_planes else conv.out_shape
    epilogue = Epilogue((), (), (Output(SUM, shape, "float32", form="planar" if writes_planes else None),))
    kernel = float_convolution(conv, read.shape, tile, kernels, epilogue, planar=planar, in_bits=True)
    stored = store_in_bits(taps, low, high, FLOATS, conv.groups, tile)
    [sums] = machine.call(kernel, [np.ascontiguousarray(read), *stored], [(shape, "float32")])
    sums = sums.transpose(0, 2, 3, 1) if writes_planes else sums
    np.testing.assert_array_equal(sums, convolution_reference(activations, weights, conv))


def check_int8(machine, dot, conv: Convolution, seed: int) -> None:
    top, left, bottom, right = conv.padding
    halo = (top, left, bottom + bytes_after(conv, dot.word), right)
    packing = Packing(conv.channels, 8, halo=halo, quantizer=Quantizer(0.02, dot.zero_point))
    words, activations, _ = quantized(packing, conv, seed)
    higher, low, high, weights = two_levels(conv, seed, 127, "int8")
    tile, epilogue = dot.tile(conv), plain(conv.out_shape, "int32")
    kernel = int8_convolution(conv, packing, tile, replace(machine.kernels, dot=dot), epilogue, in_bits=True)
    stored = store_in_bits(higher, low, high, int8_code(conv, dot.word), conv.groups, tile)
    tables = [offsets(weights, dot.zero_point)] if dot.zero_point else []
    [sums] = machine.call(kernel, [words, *stored, *tables], [(conv.out_shape, "int32")])
    np.testing.assert_array_equal(sums, binary_convolution_reference(activations, weights, conv))


@given(kernels=TARGETS, conv=convolutions(), layout=st.sampled_from(["", "writes planes"]), seed=SEED)
@settings(deadline=None, max_examples=20)
def test_float(host, kernels, conv, layout, seed):
    check_float(host.of(kernels), kernels, conv, seed, layout)


@given(kernels=TARGETS, conv=convolutions(st.just(1)), channels=st.integers(1, 4), seed=SEED)
@settings(deadline=None, max_examples=10)
def test_float_plane_by_plane(host, kernels, conv, channels, seed):
    conv = replace(conv, channels=channels, dilation=(conv.dilation[0], 1))
    check_float(host.of(kernels), kernels, conv, seed, "reads planes")


@given(data=st.data(), conv=convolutions(), seed=SEED)
@settings(deadline=None, max_examples=30)
def test_int8(host, data, conv, seed):
    assume(not depthwise.is_depthwise(conv, packed=False))
    machine = host.some(seed)
    check_int8(machine, data.draw(st.sampled_from(dot_products(machine))), conv, seed)


@pytest.mark.parametrize("machine", ["arm64", "arm64_dotprod", "arm32"])
def test_on_arm(request, machine):
    arm = request.getfixturevalue(machine)
    check_float(arm, arm.kernels, FIXED[1], 1, "")
    check_int8(arm, arm.kernels.dot, Convolution(1, 9, 11, 3, 24, (7, 7), (2, 2), (3, 3, 3, 3)), 1)
