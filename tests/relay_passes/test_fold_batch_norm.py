import numpy as np
import pytest
from tvm import relax

from relay_passes.fold_batch_norm import fold_batch_norm

CHANNELS = 5


def parameters() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    gamma, beta, mean = rng.normal(size=(3, CHANNELS)).astype("float32")
    return [gamma, beta, mean, rng.uniform(0.1, 2, CHANNELS).astype("float32")]


@pytest.mark.parametrize("center, scale", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("shape, axis", [((2, CHANNELS, 3, 4), 1), ((2, 3, CHANNELS), 2), ((4, CHANNELS), 1)])
def test_becomes_a_multiplication_and_an_addition(build, run, operators, shape, axis, center, scale):
    def body(emit, x):
        return batch_norm(emit, x, axis=axis, epsilon=1e-3, center=center, scale=scale, training=False)

    before = build(body, shape)
    after = fold_batch_norm(before)
    assert operators(after) == ["multiply", "add"]
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-6)


def batch_norm(emit, x, **options):
    return emit(emit(relax.op.nn.batch_norm(x, *map(relax.const, parameters()), **options))[0])


def test_statistics_of_the_batch_stay(build, operators):
    mod = build(lambda emit, x: batch_norm(emit, x, axis=1, training=True), (4, CHANNELS))
    assert operators(fold_batch_norm(mod)) == ["batch_norm"]


def test_statistics_that_are_no_constants_stay(build, operators):
    def body(emit, x, mean):
        gamma, beta, _, variance = map(relax.const, parameters())
        norm = relax.op.nn.batch_norm(x, gamma, beta, mean, variance, axis=1, training=False)
        return emit(emit(norm)[0])

    assert operators(fold_batch_norm(build(body, (2, CHANNELS), (CHANNELS,)))) == ["batch_norm"]
