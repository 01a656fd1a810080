import numpy as np
import pytest
from tvm import relax

from relay_passes.expand_powers import expand_powers

X = np.array([[-3.5, -1.0, -0.0, 0.0], [0.3, 1.0, 7.0, np.inf]], "float32")


@pytest.mark.parametrize("exponent", range(1, 9))
@pytest.mark.parametrize("shape", [(), (1, 1)], ids=str)
def test_products_are_powers(build, run, operators, exponent, shape):
    power = relax.const(np.full(shape, exponent, "float32"))
    after = expand_powers(build(lambda emit, x: emit(relax.op.power(x, power)), X.shape))
    assert set(operators(after)) <= {"multiply"}
    assert len(operators(after)) == exponent.bit_length() - 1 + exponent.bit_count() - 1
    [found] = run(after, X)
    np.testing.assert_allclose(found, X.astype("float64") ** exponent, rtol=5e-7)


def test_a_square(build, run, operators):
    after = expand_powers(build(lambda emit, x: emit(relax.op.square(x)), X.shape))
    assert operators(after) == ["multiply"]
    np.testing.assert_array_equal(run(after, X)[0], X**2)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.5, -1.0, 9.0, np.inf, [2.0, 3.0, 4.0, 5.0], [[[2.0]]]])
def test_other_powers_stay(build, operators, exponent):
    power = relax.const(np.array(exponent, "float32"))
    before = build(lambda emit, x: emit(relax.op.power(x, power)), X.shape)
    assert operators(expand_powers(before)) == ["power"]
