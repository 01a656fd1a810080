"""How bits lie in memory."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.parts.bits import Packing, pack, unpack

HALO = st.tuples(*[st.integers(0, 3)] * 4)


@given(
    word=st.sampled_from([8, 16, 32]),
    groups=st.integers(1, 4),
    per_group=st.integers(1, 70),
    halo=HALO,
    extents=st.tuples(*[st.integers(1, 4)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_round_trip(word, groups, per_group, halo, extents, seed):
    packing = Packing(groups * per_group, word, groups, halo)
    truth = np.random.default_rng(seed).random((*extents, packing.channels)) < 0.5
    words = pack(truth, packing)
    assert words.shape == packing.shape(*extents)
    assert str(words.dtype) == packing.dtype
    np.testing.assert_array_equal(unpack(words, packing), truth)
    # Neither the halo nor what fills up a word holds a bit.
    assert np.unpackbits(words.view(np.uint8)).sum() == truth.sum()


def test_channel_c_is_bit_c_mod_8_of_byte_c_div_8():
    for word in (8, 16, 32):
        for channel in range(70):
            truth = np.arange(70)[None, None, None] == channel
            stored = pack(truth, Packing(70, word)).view(np.uint8).ravel()
            assert stored[channel // 8] == 1 << channel % 8
            assert np.count_nonzero(stored) == 1


def test_each_group_starts_a_word():
    words = pack(np.ones((1, 1, 1, 6), bool), Packing(6, 8, groups=2))
    assert words.ravel().tolist() == [0b111, 0b111]


def test_halo_is_top_left_bottom_right():
    words = pack(np.ones((1, 1, 1, 8), bool), Packing(8, 8, halo=(1, 2, 3, 4)))
    assert words.shape == (1, 1 + 1 + 3, 2 + 1 + 4, 1)
    assert np.argwhere(words).tolist() == [[0, 1, 2, 0]]
