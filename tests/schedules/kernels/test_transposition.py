"""The kernel that turns turned_extents, against numpy."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.transposition import transposition, turned_extents

EXTENTS = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))


def check(machine, extents: tuple[int, int, int], floats: int, dtype: str) -> None:
    batch, rows, columns = extents
    numbers = np.arange(batch * rows * columns).reshape(extents).astype(dtype)
    kernel = transposition(extents, (batch, columns, rows), extents, dtype, floats)
    [turned] = machine.call(kernel, [numbers], [((batch, columns, rows), dtype)])
    np.testing.assert_array_equal(turned, numbers.swapaxes(1, 2))


@given(extents=EXTENTS, floats=st.sampled_from([4, 8, 16]), dtype=st.sampled_from(["float32", "int32"]))
@settings(deadline=None, max_examples=30)
def test_on_this_machine(host, extents, floats, dtype):
    check(host.some(extents[1]), extents, floats, dtype)


@pytest.mark.parametrize("extents", [(2, 3, 49), (1, 49, 64), (1, 9, 2)], ids=str)
def test_on_arm(arm, extents):
    check(arm, extents, arm.kernels.floats, "float32")


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4), (2, 3, 4, 5)], ids=str)
def test_which_permutations_turn_matrices(shape):
    """Those, and only those, that are a `swapaxes` of the tensor as [batch, rows, columns]."""
    x = np.arange(np.prod(shape)).reshape(shape)
    for axes in permutations(range(len(shape))):
        turned = x.transpose(axes)
        splits = [
            (int(np.prod(shape[:i])), int(np.prod(shape[i:j])), int(np.prod(shape[j:])))
            for i in range(len(shape))
            for j in range(i + 1, len(shape))
        ]
        fitting = [s for s in splits if (x.reshape(s).swapaxes(1, 2).ravel() == turned.ravel()).all()]
        assert (turned_extents(shape, axes) in fitting) if fitting else turned_extents(shape, axes) is None
