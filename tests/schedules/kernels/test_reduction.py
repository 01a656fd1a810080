"""The largest, the smallest, the sum and the mean along axes, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.reduction import reduced_extents, reduction_kernel

EXTENTS = st.one_of(
    st.tuples(st.integers(1, 20), st.integers(1, 200), st.just(1)),
    st.tuples(st.integers(1, 3), st.integers(1000, 1100), st.just(1)),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 300)),
)
KINDS = {
    ("max", "float32"): np.max, ("max", "int32"): np.max,
    ("min", "float32"): np.min, ("min", "int32"): np.min,
    ("sum", "float32"): np.sum, ("mean", "float32"): np.mean,
}  # fmt: skip


def check(machine, extents: tuple[int, int, int], kind: str, dtype: str, together: int) -> None:
    numbers = np.random.default_rng(sum(extents)).normal(-50, 100, extents).astype(dtype)
    outer, _, inner = extents
    kernel = reduction_kernel(extents, (outer, inner), extents, dtype, kind, together=together)
    [found] = machine.call(kernel, [numbers], [((outer, inner), dtype)])
    right = KINDS[kind, dtype](numbers.astype("float64"), 1)
    if kind in ("max", "min"):
        np.testing.assert_array_equal(found, right)
    else:
        rounding = 2e-6 * KINDS[kind, dtype](np.abs(numbers.astype("float64")), 1)
        assert np.all(np.abs(found - right) <= rounding)


@given(extents=EXTENTS, kind=st.sampled_from(list(KINDS)), together=st.sampled_from([1, 4, 16]))
@settings(deadline=None, max_examples=40)
def test_on_this_machine(host, extents, kind, together):
    check(host.some(extents[1]), extents, *kind, together)


@pytest.mark.parametrize("extents", [(9, 77, 1), (2, 5, 19)], ids=str)
@pytest.mark.parametrize("kind", ["max", "mean"])
def test_on_arm(arm, extents, kind):
    check(arm, extents, kind, "float32", 4)


def test_which_axes_are_neighbours():
    assert reduced_extents((2, 3, 4, 5), (1, 2)) == (2, 12, 5)
    assert reduced_extents((2, 3, 4, 5), (3,)) == (24, 5, 1)
    assert reduced_extents((2, 3), (1, 0)) == (1, 6, 1)
    assert reduced_extents((2, 3, 4, 5), (1, 3)) is None
