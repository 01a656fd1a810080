"""The largest and the smallest along axes, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.extremum import extremum_kernel, reduced_extents

EXTENTS = st.one_of(
    st.tuples(st.integers(1, 4), st.integers(1, 200), st.just(1)),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 300)),
)


def check(machine, extents: tuple[int, int, int], dtype: str, greatest: bool, together: int) -> None:
    numbers = np.random.default_rng(sum(extents)).normal(-50, 100, extents).astype(dtype)
    outer, _, inner = extents
    kernel = extremum_kernel(extents, (outer, inner), extents, dtype, greatest=greatest, together=together)
    [found] = machine.call(kernel, [numbers], [((outer, inner), dtype)])
    np.testing.assert_array_equal(found, numbers.max(1) if greatest else numbers.min(1))


@given(
    extents=EXTENTS,
    dtype=st.sampled_from(["float32", "int32"]),
    greatest=st.booleans(),
    together=st.sampled_from([1, 4, 16]),
)
@settings(deadline=None, max_examples=30)
def test_on_this_machine(host, extents, dtype, greatest, together):
    check(host.some(extents[1]), extents, dtype, greatest, together)


@pytest.mark.parametrize("extents", [(2, 77, 1), (2, 5, 19)], ids=str)
def test_on_arm(arm, extents):
    check(arm, extents, "float32", True, 4)


def test_which_axes_are_neighbours():
    assert reduced_extents((2, 3, 4, 5), (1, 2)) == (2, 12, 5)
    assert reduced_extents((2, 3, 4, 5), (3,)) == (24, 5, 1)
    assert reduced_extents((2, 3), (1, 0)) == (1, 6, 1)
    assert reduced_extents((2, 3, 4, 5), (1, 3)) is None
