import numpy as np
import pytest
from tvm import relax

from relay_passes.merge_scales import merge_scales

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (1, 3, 4, 8)


def constant(*shape):
    return relax.const(RNG.normal(size=shape).astype("float32"))


@pytest.mark.parametrize("operator", ["multiply", "add"])
def test_two_constants_become_one(build, run, operators, operator):
    combine = getattr(op, operator)
    before = build(lambda emit, x: emit(combine(emit(combine(x, constant(8))), constant(1, 1, 1, 1))), SHAPE)
    after = merge_scales(before)
    assert operators(after) == [operator]
    x = RNG.normal(size=SHAPE).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-6)


def test_a_value_that_something_else_reads_stays(build, operators):
    def body(emit, x):
        scaled = emit(op.multiply(x, constant(8)))
        return emit(op.add(scaled, emit(op.multiply(scaled, constant(8)))))

    assert operators(merge_scales(build(body, SHAPE))) == ["multiply", "multiply", "add"]


def test_a_value_that_is_an_output_stays(build, run, operators):
    def body(emit, x):
        scaled = emit(op.multiply(x, constant(8)))
        return scaled, emit(op.multiply(scaled, constant(8)))

    before = build(body, SHAPE)
    x = RNG.normal(size=SHAPE).astype("float32")
    for ours, theirs in zip(run(merge_scales(before), x), run(before, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_product_that_overflows_stays(build, operators):
    huge = relax.const(np.float32(1e30))
    mod = build(lambda emit, x: emit(op.multiply(emit(op.multiply(x, huge)), huge)), SHAPE)
    assert operators(merge_scales(mod)) == ["multiply", "multiply"]
