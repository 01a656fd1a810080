"""The plain reference of convolutions against the definition, and the tables made at compile time."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.parts.borders import border_tables
from tests.schedules.kernels.convolutions import (
    SEED,
    convolutions,
    expected_sums,
    random_bits,
)


@given(conv=convolutions(), seed=SEED)
@settings(deadline=None, max_examples=30)
def test_the_reference_is_the_definition(conv, seed):
    """One output element, as a sum over the taps inside the image."""
    bits, weights = random_bits(seed, conv)
    rng = np.random.default_rng(seed)
    n, oh, ow, o = (int(rng.integers(extent)) for extent in conv.out_shape)
    group = o // (conv.out_channels // conv.groups)
    depth = conv.channels // conv.groups
    total = 0
    for kh, kw in np.ndindex(conv.kernel):
        y = oh * conv.strides[0] + kh * conv.dilation[0] - conv.padding[0]
        x = ow * conv.strides[1] + kw * conv.dilation[1] - conv.padding[1]
        if 0 <= y < conv.height and 0 <= x < conv.width:
            seen = bits[n, y, x, group * depth : (group + 1) * depth]
            total += depth - 2 * int((seen ^ weights[o, kh, kw]).sum())
    assert expected_sums(bits, weights, conv)[n, oh, ow, o] == total


@given(conv=convolutions(), zero_one=st.booleans(), seed=SEED)
@settings(deadline=None, max_examples=50)
def test_border_tables_make_the_sums_of_counts(conv, zero_one, seed):
    """dot = base - 2 * count, where count takes the padding for bits 0."""
    bits, weights = random_bits(seed, conv)
    top, left, bottom, right = conv.padding
    padded = np.pad(bits, ((0, 0), (top, bottom), (left, right), (0, 0)))
    enlarged = replace(conv, height=padded.shape[1], width=padded.shape[2], padding=(0, 0, 0, 0))
    counts = (conv.products - expected_sums(padded, weights, enlarged)) // 2
    base, rows, columns = border_tables(conv, weights, zero_one)
    sums = base[rows][:, columns] - 2 * counts
    np.testing.assert_array_equal(sums, expected_sums(bits, weights, conv, zero_one))
