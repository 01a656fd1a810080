"""Counts and tables where their integers are about to be too wide for their bits."""

from dataclasses import replace

import numpy as np
import pytest

from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution
from schedules.parts.bits import Packing, pack
from schedules.parts.borders import border_tables, halves, limit_table
from schedules.parts.epilogue import plain
from schedules.parts.weights import lay_out, pack_weights
from schedules.targets.generic import GENERIC


def of(products: int) -> Convolution:
    return Convolution(1, 1, 1, products, 2)


def extremes(products: int) -> np.ndarray:
    """Weights of two outputs, all +1 and all -1."""
    return np.stack([np.full((1, 1, products), sign, bool) for sign in (True, False)])


@pytest.mark.parametrize("zero_one", [False, True])
@pytest.mark.parametrize("products", [6553, 6554, 16383, 16384, 32767, 32768, 65535, 65536])
def test_a_table_holds_the_largest_sums(products: int, zero_one: bool) -> None:
    """Where no bit differs: a dot product of K, or over {0, 1} twice K or twice 0; and where all differ."""
    base, _, _ = border_tables(of(products), extremes(products), zero_one)
    none = [2 * products, 0] if zero_one else [products, products]
    assert base.astype(int).ravel().tolist() == none


@pytest.mark.parametrize("products", [3, 255, 65534, 65535, 65536])
def test_a_limit_is_right_for_every_count(products: int) -> None:
    """dot = K - 2 * count; thresholds between two dot products, on one, at both ends and beyond them."""
    ends = [-products - 9, -products, 1 - products, 2 - products, products - 1, products, products + 1]
    thresholds = np.array([*ends, products + 9, -1, 0, 1])
    conv = replace(of(products), out_channels=len(thresholds))
    limits = limit_table(np.full((1, 1, len(thresholds)), products), thresholds, conv).ravel()
    for count in {0, 1, products // 2, products // 2 + 1, products - 1, products}:
        np.testing.assert_array_equal(count < limits.astype(int), products - 2 * count >= thresholds)


@pytest.mark.parametrize("products", [16383, 16384, 32767, 32768])
def test_sums_over_0_and_1_that_16_bits_hold_just_or_just_not(host, products: int) -> None:
    conv = of(products)
    packing, weights = Packing(products, 8), extremes(products)
    tile = GENERIC.binary_tile(conv)
    kernel = binary_convolution(conv, packing, tile, GENERIC, plain((2,), "int32"), ending="bordered dot")
    laid_out, tables = lay_out(pack_weights(weights, 8), 1, tile), border_tables(conv, weights, True)
    for bit, sums in ((True, [2 * products, -2 * products]), (False, [0, 0])):
        words = pack(np.full((1, 1, 1, products), bit), packing)
        [found] = host.call(kernel, [words, laid_out, *tables], [((2,), "int32")])
        assert found.tolist() == sums


@pytest.mark.parametrize(
    ("off", "fits"), [(254, True), (-256, True), (256, False), (-258, False), (1, False)]
)
def test_half_of_a_border_is_a_byte_or_is_not_stored_so(off: int, fits: bool) -> None:
    """off: of one entry from the number of products."""
    conv = of(3000)
    base = np.array([[[3000, 3000 + off]]], np.int16)
    half = halves(base, conv)
    assert (half is not None) == fits
    if half is not None:
        assert half.dtype == np.int8 and (conv.products + 2 * half.astype(int) == base).all()
