"""The kernel that takes parts by their indices, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.gather import gather

DTYPES = ["float32", "int32", "uint8", "uint32"]
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


def check(machine, shape, axis, places, dtype, index_dtype, lanes, clips) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 200, shape).astype(dtype)
    outside = 3 if clips else 0
    indices = rng.integers(-outside, shape[axis] + outside, places).astype(index_dtype)
    kernel = gather(shape, places, axis, dtype, index_dtype, lanes, clips=clips)
    expected = np.take(x, indices, axis, mode="clip")
    [taken] = machine.call(kernel, [x, indices], [(expected.shape, dtype)])
    np.testing.assert_array_equal(taken, expected)


@given(
    before=SHAPES, extent=st.integers(1, 40), run=st.integers(1, 70), places=st.just(()) | SHAPES,
    dtype=st.sampled_from(DTYPES), index_dtype=st.sampled_from(["int32", "int64"]),
    lanes=st.sampled_from([4, 8, 16, 32]), clips=st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_on_this_machine(host, before, extent, run, places, dtype, index_dtype, lanes, clips):
    shape = (*before, extent, run)
    check(host.some(lanes), shape, len(before), places, dtype, index_dtype, lanes, clips)


@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_on_arm(arm, index_dtype):
    check(arm, (50, 33), 0, (1, 7), "float32", index_dtype, 4, True)
