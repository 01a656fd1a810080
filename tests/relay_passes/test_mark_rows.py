import numpy as np
import pytest
from tvm import relax

from relay_passes.mark_rows import mark_rows

RNG = np.random.default_rng(0)
op = relax.op


def vector(channels):
    return relax.const(RNG.normal(size=channels).astype("float32"))


@pytest.mark.parametrize("shape", [(1, 7, 12), (2, 3, 4, 5), (3, 8)], ids=str)
def test_a_norm_and_what_follows_it_are_one_kernel(build, run, operators, shape):
    def body(emit, x):
        return emit(op.nn.relu(emit(op.nn.layer_norm(x, vector(shape[-1]), vector(shape[-1]), [-1], 1e-3))))

    before = build(body, shape)
    after = mark_rows(before)
    assert operators(after) == ["bibench.normalize", "multiply", "add", "relu"]
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-4, atol=1e-5)


def test_without_scales(build, operators):
    def body(emit, x):
        return emit(op.nn.layer_norm(x, vector(6), vector(6), [1], center=False, scale=False))

    assert operators(mark_rows(build(body, (3, 6)))) == ["bibench.normalize"]


def test_over_several_axes_it_stays(build, operators):
    def body(emit, x):
        both = (relax.const(np.ones((4, 6), "float32")) for _ in range(2))
        return emit(op.nn.layer_norm(x, *both, [1, 2]))

    assert operators(mark_rows(build(body, (3, 4, 6)))) == ["layer_norm"]


@pytest.mark.parametrize("axis, ours", [(-1, True), (2, True), (1, False)])
def test_softmax_of_rows(build, run, operators, axis, ours):
    def body(emit, x):
        return emit(op.multiply(emit(op.nn.softmax(x, axis)), vector(6)))

    before = build(body, (2, 5, 6))
    after = mark_rows(before)
    assert operators(after) == ["bibench.softmax" if ours else "softmax", "multiply"]
    x = RNG.normal(size=(2, 5, 6)).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-6)
