"""Sums of packed signs against numpy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.kernels.sign_sums import sign_sums_kernel
from schedules.parts.bits import Packing, pack

EXTENTS = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 130))


def check(machine, extents: tuple[int, int, int, int], word: int) -> None:
    truths = np.random.default_rng(sum(extents)).random(extents) < 0.3
    packing = Packing(extents[3], word)
    kernel = sign_sums_kernel(extents[:3], packing)
    [sums] = machine.call(kernel, [pack(truths, packing)], [((*extents[:3], 1), "int32")])
    np.testing.assert_array_equal(sums, np.where(truths, 1, -1).sum(-1, keepdims=True))


@given(extents=EXTENTS, word=st.sampled_from([8, 16, 32]))
@settings(deadline=None, max_examples=20)
def test_on_this_machine(host, extents, word):
    check(host.some(extents[3]), extents, word)


def test_on_arm(arm):
    check(arm, (2, 3, 5, 77), 8)
