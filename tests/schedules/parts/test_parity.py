"""Differing bits counted in pairs of words, against counting them one by one."""

from dataclasses import replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.parts.parity import prepare_weights, prepared
from schedules.targets.kernel_target import Tile
from tests.schedules.kernels.convolutions import SEED, convolutions
from tests.schedules.kernels.test_binary_convolution import check_sums


def ones(words: np.ndarray) -> int:
    return int(np.unpackbits(words.view(np.uint8)).sum())


@given(shape=st.tuples(*[st.integers(1, 3)] * 4), seed=SEED)
def test_the_full_adder(shape, seed):
    rng = np.random.default_rng(seed)
    activations, weights = rng.integers(0, 2**32, (2, *shape), np.uint32)
    words = prepare_weights(activations) ^ prepare_weights(weights)
    assert words.shape == (shape[0], 1, 1, prepared(np.prod(shape[1:])))
    for each, a, w in zip(words, activations, weights, strict=True):
        x, parity, both = each[0, 0, :-1].reshape(-1, 3).T
        assert ones(each[0, 0, -1:]) + 2 * ones(x ^ (parity & both)) == ones(a ^ w)


@given(
    conv=convolutions(),
    words=st.sampled_from([1, 2, 3, 5]),
    tile=st.builds(
        Tile,
        pixels=st.integers(1, 5),
        lanes=st.sampled_from([8, 32, 40]),
        quantum=st.just(8),
        word=st.just(32),
        unroll=st.integers(1, 3),
        blocks_outside=st.booleans(),
    ),
    zero_one=st.booleans(),
    seed=SEED,
)
@example(  # of more pairs than a byte counts
    Convolution(1, 2, 2, 1, 33, (3, 3), padding=(1, 1, 1, 1)),
    8,
    Tile(pixels=2, lanes=16, quantum=8, word=32),
    False,
    0,
)
@settings(deadline=None, max_examples=30)
def test_binary_in_pairs(host, conv, words, tile, zero_one, seed):
    """On every target that this machine has and that counts so; on a processor without AVX2 that is none."""
    conv = replace(conv, channels=conv.groups * words * 32)
    for machine in host.each:
        if machine.kernels.add_bytes:
            kernels = replace(machine.kernels, binary_tile=lambda _: tile)
            check_sums(machine, kernels, conv, (0, 0, 0, 0), zero_one, seed)
