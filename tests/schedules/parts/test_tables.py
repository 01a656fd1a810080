"""Differing bits looked up four at a time, against counting them one by one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution, lay_out_bits, limit_dtype
from schedules.parts.bits import Packing, pack
from schedules.parts.borders import border_tables, limit_table
from schedules.parts.epilogue import plain
from schedules.parts.tables import prepare_weights
from schedules.parts.weights import pack_weights
from schedules.targets.aarch64_neon import AARCH64_NEON
from schedules.targets.kernel_target import Tile
from tests.schedules.kernels.convolutions import HALO, SEED, convolutions, expected_sums, random_bits
from tests.schedules.kernels.test_binary_convolution import check_sums
from tests.schedules.kernels.test_convolution_outputs import check_outputs


@given(shape=st.tuples(*[st.integers(1, 3)] * 4), dtype=st.sampled_from(["uint8", "uint16", "uint32"]))
def test_four_bits_of_weights_follow_each_other(shape, dtype):
    words = np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
    fours = bits.reshape(*shape[:3], -1, 4) @ [1, 2, 4, 8]
    np.testing.assert_array_equal(prepare_weights(words), fours)


@given(
    conv=convolutions(),
    tile=st.builds(
        Tile,
        pixels=st.integers(1, 5),
        lanes=st.sampled_from([32, 64, 96]),
        quantum=st.just(32),
        word=st.just(4),
        unroll=st.integers(1, 3),
        blocks_outside=st.booleans(),
    ),
    zero_one=st.booleans(),
    seed=SEED,
)
@example(  # more than the sum of a run that a byte holds
    Convolution(1, 2, 2, 99, 33, (3, 3), padding=(1, 1, 1, 1)),
    Tile(pixels=2, lanes=32, quantum=32, word=4),
    False,
    0,
)
@example(  # sums beyond 16 bits
    Convolution(1, 2, 2, 4096, 8, (5, 5), padding=(2, 2, 2, 2)),
    Tile(pixels=2, lanes=32, quantum=32, word=4),
    False,
    0,
)
@example(  # dot products that a byte holds, of words that are not full
    Convolution(2, 3, 5, 124, 40), Tile(pixels=4, lanes=64, quantum=32, word=4), False, 0
)
@example(  # so many sums of few bits that the weights are expanded; of dot products, and of counts
    Convolution(1, 16, 33, 30, 70), Tile(pixels=4, lanes=64, quantum=32, word=4), False, 0
)
@example(Convolution(1, 16, 33, 30, 70), Tile(pixels=4, lanes=64, quantum=32, word=4), True, 0)
@example(
    Convolution(1, 16, 33, 3, 70, (3, 1), padding=(1, 0, 1, 0)),
    Tile(pixels=4, lanes=32, quantum=32, word=4, unroll=2),
    False,
    0,
)
@settings(deadline=None, max_examples=30)
def test_binary_by_tables(host, conv, tile, zero_one, seed):
    """On every target that this machine has and that looks up; on a processor without AVX2 that is none."""
    for machine in host.each:
        if machine.kernels.look_up:
            kernels = replace(machine.kernels, binary_tile=lambda _: tile)
            check_sums(machine, kernels, conv, (0, 0, 0, 0), zero_one, seed)


@given(
    channels=st.integers(1, 124),
    out_channels=st.integers(1, 100),
    halo=HALO,
    pixels=st.integers(1, 5),
    lanes=st.sampled_from([32, 64]),
    width=st.sampled_from([5, 90]),
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_numbers_and_packed_truth_of_few_channels(
    host, channels, out_channels, halo, pixels, lanes, width, seed
):
    """Of dot products that a byte holds some channels of all pixels are written before the next."""
    conv = Convolution(2, 3, width, channels, out_channels)
    tile = Tile(pixels=pixels, lanes=lanes, quantum=32, word=4)
    for machine in host.each:
        if machine.kernels.look_up:
            kernels = replace(machine.kernels, binary_tile=lambda _: tile)
            check_outputs(machine, kernels, conv, Packing(out_channels, 8, halo=halo), seed)


@given(conv=convolutions(), pixels=st.integers(1, 5), blocks_outside=st.booleans(), seed=SEED)
@example(Convolution(1, 2, 3, 252, 40), 4, False, 0)  # counts that a byte holds, and their limits
@example(Convolution(1, 2, 3, 253, 40), 4, False, 0)
@example(Convolution(1, 4, 3, 28, 40, (3, 3), padding=(1, 1, 1, 1)), 4, False, 0)
@example(Convolution(1, 24, 24, 20, 100), 4, False, 0)  # expanded
@settings(deadline=None, max_examples=30)
def test_truths_by_tables(host, conv, pixels, blocks_outside, seed):
    """For thresholds at the ends of, and beyond the range of the sums."""
    bits, weights = random_bits(seed, conv)
    sums, reach = expected_sums(bits, weights, conv), conv.products + 2
    thresholds = np.random.default_rng(seed).choice(
        [-reach, -conv.products, 0, conv.products, reach], len(weights)
    )
    tile = Tile(pixels=pixels, lanes=64, quantum=32, word=4, blocks_outside=blocks_outside)
    packing, epilogue = Packing(conv.channels, 8, conv.groups, conv.padding), plain(conv.out_shape, "bool")
    laid_out = lay_out_bits(pack_weights(weights, 8), conv.groups, tile)
    base, *classes = border_tables(conv, weights, False)
    limits = limit_table(base, thresholds, conv).astype(limit_dtype(conv, packing, tile))
    for machine in host.each:
        if machine.kernels.look_up:
            kernel = binary_convolution(conv, packing, tile, machine.kernels, epilogue, ending="truth")
            arguments = [pack(bits, packing), laid_out, limits, *classes]
            [truth] = machine.call(kernel, arguments, [(conv.out_shape, "bool")])
            np.testing.assert_array_equal(truth, sums >= thresholds)


def test_without_a_look_up():
    tile, conv = Tile(pixels=1, lanes=32, quantum=32, word=4), Convolution(1, 1, 1, 8, 8)
    with pytest.raises(ValueError, match="kernels of aarch64_neon have no tables for words of 4 bits"):
        binary_convolution(
            conv, Packing(8, 8), tile, AARCH64_NEON, plain(conv.out_shape, "int32"), ending="dot"
        )
