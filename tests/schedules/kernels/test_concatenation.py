"""The kernel that puts tensors side by side, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.concatenation import concatenation

DTYPES = ["float32", "int32", "uint8", "uint16", "uint32"]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], int]:
    """(shapes that differ along the axis, that axis)."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axis = draw(st.integers(0, len(shape) - 1))
    extents = draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))
    return [(*shape[:axis], extent, *shape[axis + 1 :]) for extent in extents], axis


def check(machine, shapes: list[tuple[int, ...]], axis: int, dtype: str, lanes: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 200, shape).astype(dtype) for shape in shapes]
    expected = np.concatenate(parts, axis)
    [joined] = machine.call(concatenation(shapes, axis, dtype, lanes), parts, [(expected.shape, dtype)])
    np.testing.assert_array_equal(joined, expected)


@given(given=tensors(), dtype=st.sampled_from(DTYPES), lanes=st.sampled_from([4, 8, 16, 32]))
@settings(deadline=None, max_examples=30)
def test_on_this_machine(host, given, dtype, lanes):
    check(host.some(lanes), *given, dtype, lanes)


@pytest.mark.parametrize(
    "shapes", [[(1, 5, 6, 2), (1, 5, 6, 1), (1, 5, 6, 4)], [(3, 1, 1, 33), (3, 1, 1, 7)]], ids=str
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_on_arm(arm, shapes, dtype):
    check(arm, shapes, 3, dtype, 4)
