"""Binary convolution against its plain reference."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.kernels.convolution import binary_convolution, limit_dtype
from schedules.parts.bits import Packing, pack
from schedules.parts.borders import Ending, border_tables, halves, limit_table, limits_inside
from schedules.parts.epilogue import SUM, Epilogue, Output, plain
from schedules.parts.weights import lay_out, pack_weights
from schedules.targets.aarch64_neon import AARCH64_NEON
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget, Tile
from tests.schedules.kernels.convolutions import (
    CHANNELS,
    FIXED,
    HALO,
    SEED,
    TARGETS,
    binary_kernel,
    convolutions,
    depthwise_convolutions,
    expected_sums,
    random_bits,
)


def check_sums(
    machine, kernels: KernelTarget, conv: Convolution, more: tuple, zero_one: bool, seed: int
) -> None:
    """`more`: halo beyond the padding, as another reader of the same activations might need it."""
    bits, weights = random_bits(seed, conv)
    halo = tuple(p + m for p, m in zip(conv.padding, more, strict=True))
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, halo)
    ending: Ending = "bordered dot" if zero_one or any(conv.padding) else "dot"
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, plain(conv.out_shape, "int32"), ending)
    tables = border_tables(conv, weights, zero_one) if ending == "bordered dot" else ()
    [sums] = machine.call(kernel, [pack(bits, packing), laid_out, *tables], [(conv.out_shape, "int32")])
    np.testing.assert_array_equal(sums, expected_sums(bits, weights, conv, zero_one))


@given(kernels=st.sampled_from(ALL), conv=convolutions(), zero_one=st.booleans(), seed=SEED)
@settings(deadline=None, max_examples=60)
def test_binary_truth(host, kernels, conv, zero_one, seed):
    """Counts against limits, for thresholds in, at the ends of, and beyond the range of the sums."""
    bits, weights = random_bits(seed, conv)
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    sums = expected_sums(bits, weights, conv, zero_one)
    reach = 2 * conv.products + 1
    rng = np.random.default_rng(seed)
    ends = np.asarray([-reach, reach, sums.min(), sums.max(), sums.max() + 1, 0])
    thresholds = np.where(
        rng.random(conv.out_channels) < 0.5,
        rng.choice(ends, conv.out_channels),
        rng.integers(-reach, reach + 1, conv.out_channels),
    )
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, plain(conv.out_shape, "bool"), "truth")
    base, *classes = border_tables(conv, weights, zero_one)
    limits = limit_table(base, thresholds, conv)
    if not depthwise.is_depthwise(conv, packed=True):
        limits = limits.astype(limit_dtype(conv, packing, kernels.tile_for_bits(conv)))
    [truth] = host.of(kernels).call(
        kernel, [pack(bits, packing), laid_out, limits, *classes], [(conv.out_shape, "bool")]
    )
    np.testing.assert_array_equal(truth, sums >= thresholds)


PER_GROUP = st.sampled_from([1, 1, 2, 3, 8])


@given(kernels=TARGETS, conv=convolutions(), more=HALO, zero_one=st.booleans(), seed=SEED)
@example(ALL[0], Convolution(1, 1, 1, 64, 64, (3, 3), padding=(1, 1, 1, 1)), (0, 0, 0, 0), False, 0)
@example(ALL[0], Convolution(1, 7, 7, 512, 512, (3, 3), padding=(1, 1, 1, 1)), (0, 0, 0, 0), False, 0)
@settings(deadline=None, max_examples=70)
def test_binary(host, kernels, conv, more, zero_one, seed):
    check_sums(host.of(kernels), kernels, conv, more, zero_one, seed)


@given(kernels=TARGETS, conv=convolutions(), seed=SEED)
@example(ALL[0], Convolution(1, 7, 7, 512, 64, (3, 3), padding=(1, 1, 1, 1)), 0)
@example(ALL[0], Convolution(1, 2, 2, 4096, 8, (5, 5), padding=(2, 2, 2, 2)), 0)  # sums beyond 16 bits
@settings(deadline=None, max_examples=40)
def test_borders_in_bytes(host, kernels, conv, seed):
    conv = replace(conv, channels=2 * conv.channels)  # an odd number has halves that are no integers
    bits, weights = random_bits(seed, conv)
    if seed == 0:  # else about as many as not are +1, and the sums of border taps small
        weights[: conv.out_channels // 2, ..., :40] = True
    base, *classes = border_tables(conv, weights, False)
    half = halves(base, conv)
    assume(half is not None and not depthwise.is_depthwise(conv, packed=True))
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    kernel, laid_out = binary_kernel(
        conv,
        packing,
        weights,
        kernels,
        plain(conv.out_shape, "int32"),
        "bordered dot",
        border_in_bytes=True,
    )
    arguments = [pack(bits, packing), laid_out, half, *classes]
    [sums] = host.of(kernels).call(kernel, arguments, [(conv.out_shape, "int32")])
    expected = expected_sums(bits, weights, conv)
    np.testing.assert_array_equal(sums, expected)

    reach = conv.products
    thresholds = np.random.default_rng(seed).integers(-3 * reach, 3 * reach + 1, conv.out_channels)
    thresholds[::2] = expected[0, 0, 0, ::2]  # reached just so
    limits = limits_inside(thresholds, conv)
    assume(limits is not None and conv.groups == 1)  # else a word would be of several groups
    after = Packing(conv.out_channels, kernels.word)
    truths = Epilogue((), (), (Output(SUM, after.shape(*conv.out_shape[:3]), after.dtype, after),))
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, truths, "truth", border_in_bytes=True)
    arguments = [pack(bits, packing), laid_out, half, *classes, limits]
    [words] = host.of(kernels).call(kernel, arguments, [(truths.outputs[0].shape, after.dtype)])
    np.testing.assert_array_equal(words, pack(expected >= thresholds, after))


@given(
    kernels=st.sampled_from([k for k in ALL if k.word > 8]),
    conv=convolutions(),
    vectors=st.integers(1, 14),
    tile=st.builds(
        Tile,
        pixels=st.integers(1, 5),
        lanes=st.just(0),
        quantum=st.sampled_from([1, 2, 4, 8]),
        depth=st.sampled_from([2, 4, 8]),
        unroll=st.integers(1, 3),
        abreast=st.sampled_from([None, 1, 2, 4]),
    ),
    seed=SEED,
)
@example(  # 1408 channels make counts that 16 bits do not hold, so that its words have 32
    next(k for k in ALL if k.word == 16),
    Convolution(1, 7, 7, 1, 1, (7, 7)),
    11,
    Tile(pixels=1, lanes=0, quantum=1, depth=8),
    0,
)
@settings(deadline=None, max_examples=40)
def test_binary_along_the_channels(host, kernels, conv, vectors, tile, seed):
    """A run of words fills `vectors` vectors, or as many for each tap."""

    def with_words_of(bits: int) -> Convolution:
        return replace(conv, channels=conv.groups * vectors * tile.depth * bits)

    conv = with_words_of(kernels.word_for(with_words_of(kernels.word)))
    lanes = tile.quantum * (1 + seed % 5)
    kernels = replace(kernels, binary_tile=lambda _: replace(tile, lanes=lanes))
    check_sums(host.of(kernels), kernels, conv, (0, 0, 0, 0), False, seed)


@given(kernels=TARGETS, conv=convolutions(), abreast=st.sampled_from([1, 2, 4, 8]), seed=SEED)
@settings(deadline=None, max_examples=40)
def test_binary_of_operations_side_by_side(host, kernels, conv, abreast, seed):
    tile = replace(kernels.binary_tile(conv), pixels=1 + seed % 4, abreast=abreast)
    kernels = replace(kernels, binary_tile=lambda _: tile, table_tile=lambda _: None)
    check_sums(host.of(kernels), kernels, conv, (0, 0, 0, 0), False, seed)


def test_a_block_that_its_channels_do_not_fill(host):
    """Its function writes sums of the whole block, also of channels that nobody reads."""
    conv = Convolution(2, 7, 8, 1536, 60, (1, 7), padding=(1, 2, 2, 1), groups=3)
    tile = Tile(pixels=2, lanes=8, quantum=8, depth=8)
    kernels = replace(AARCH64_NEON, binary_tile=lambda _: tile)
    check_sums(host.of(kernels), kernels, conv, (0, 0, 0, 0), False, seed=0)


@pytest.mark.parametrize(("word", "depth"), [(16, 8), (8, 2)], ids=["half a vector", "bytes"])
def test_a_depth_that_does_not_fit(word, depth):
    conv = Convolution(1, 4, 4, 64, 32)
    tile, epilogue = Tile(pixels=4, lanes=32, quantum=4, depth=depth), plain(conv.out_shape, "int32")
    with pytest.raises(ValueError, match=f"a depth of {depth} "):
        binary_convolution(conv, Packing(64, word), tile, ALL[0], epilogue, ending="dot")


@given(kernels=TARGETS, conv=depthwise_convolutions(PER_GROUP), more=HALO, zero_one=st.booleans(), seed=SEED)
@settings(deadline=None, max_examples=40)
def test_binary_depthwise(host, kernels, conv, more, zero_one, seed):
    check_sums(host.of(kernels), kernels, conv, more, zero_one, seed)


@pytest.mark.parametrize("channels", [65535, 65536])
@pytest.mark.parametrize("kernels", ALL, ids=lambda k: k.name)
def test_sums_that_16_bits_hold_just_or_just_not(host, kernels, channels):
    conv = Convolution(1, 1, 1, channels, 2)
    packing = Packing(channels, kernels.word_for(conv))
    weights = np.stack([np.ones((1, 1, channels), bool), np.zeros((1, 1, channels), bool)])
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, plain((2,), "int32"), "dot")
    bits = np.ones((1, 1, 1, channels), bool)
    [sums] = host.of(kernels).call(kernel, [pack(bits, packing), laid_out], [((2,), "int32")])
    assert sums.tolist() == [channels, -channels]


@pytest.mark.parametrize("zero_one", [False, True], ids=["signs", "zero_one"])
@pytest.mark.parametrize("conv", FIXED, ids=str)
def test_binary_on_arm(arm, conv, zero_one):
    check_sums(arm, arm.kernels, conv, (0, 1, 0, 2), zero_one, seed=0)


@given(
    kernels=TARGETS,
    leading=st.tuples(*[st.integers(1, 3)] * 2),
    rows=st.integers(1, 9),
    depth=st.sampled_from(CHANNELS),
    columns=st.sampled_from(CHANNELS),
    swapped=st.booleans(),
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_weights_per_row(host, kernels, leading, rows, depth, columns, swapped, seed):
    """A product of two activations: [a, b, rows, depth] @ [a, b, depth, columns]; swapped: it is written as
    [a, rows, b, columns]."""
    rng = np.random.default_rng(seed)
    left = rng.random((*leading, rows, depth)) < 0.5
    right = rng.random((*leading, columns, depth)) < 0.5
    conv = Convolution(*leading, rows, depth, columns)
    packing = Packing(depth, kernels.word)
    tile = replace(kernels.binary_tile(conv), word=None)  # both lie in the words in which they are packed
    sets = pack_weights(right.reshape(-1, 1, 1, depth), packing.word).reshape(
        -1, columns, 1, 1, packing.words
    )
    a, b, *matrix = conv.out_shape
    shape = (a, matrix[0], b, matrix[1]) if swapped else conv.out_shape
    epilogue = Epilogue((), (), (Output(SUM, shape, "int32", form="swapped" if swapped else None),))
    kernel = binary_convolution(conv, packing, tile, kernels, epilogue, ending="dot", weights_per_row=True)
    laid_out = np.concatenate([lay_out(one, 1, tile) for one in sets])
    [product] = host.of(kernels).call(kernel, [pack(left, packing), laid_out], [(shape, "int32")])
    signs = [2 * side.astype(int) - 1 for side in (left, right)]
    expected = signs[0] @ signs[1].swapaxes(2, 3)
    np.testing.assert_array_equal(product, expected.swapaxes(1, 2) if swapped else expected)
    np.testing.assert_array_equal(product, *epilogue.evaluate(expected, []))


def test_a_halo_that_does_not_cover_the_padding_is_refused():
    conv = Convolution(1, 3, 3, 8, 8, (3, 3), padding=(1, 1, 1, 1))
    packing = Packing(8, 8, halo=(1, 1, 0, 1))
    tile = ALL[0].binary_tile(conv)
    with pytest.raises(ValueError, match="does not cover the padding"):
        binary_convolution(conv, packing, tile, ALL[0], plain(conv.out_shape, "int32"), ending="bordered dot")
