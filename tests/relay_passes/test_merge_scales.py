import numpy as np
import pytest
import tvm
from tvm import relax

from relay_passes.ir.rewrite import bindings, constant_value, is_constant, rewrite
from relay_passes.merge_scales import merge_scales

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (1, 3, 4, 8)


def constant(*shape):
    """Powers of two from 1/8 to 8 with either sign: their products and sums are exact."""
    return relax.const(RNG.choice([-1, 1], shape).astype("float32") * 2.0 ** RNG.integers(-3, 4, shape))


def float32(value):
    return relax.const(np.float32(value))


def check_stays(before):
    """Not only the same number of operators: each of them reads what it read before."""
    tvm.ir.assert_structural_equal(merge_scales(before), rewrite(before, lambda _, __, value: value))


@pytest.mark.parametrize("shapes", [((8,), (1, 1, 1, 1)), ((3, 4, 8), (8,)), ((), (1, 3, 1, 8))])
@pytest.mark.parametrize("operator", ["multiply", "add"])
def test_two_constants_become_one(build, run, operators, operator, shapes):
    """From either side, and broadcast against each other as against the activation."""
    combine = getattr(op, operator)
    a, b = (relax.const(np.float32(constant(*shape).value.numpy())) for shape in shapes)
    before = build(lambda emit, x: emit(combine(b, emit(combine(x, a)))), SHAPE)
    after = merge_scales(before)
    assert operators(after) == [operator]
    x = RNG.integers(-8, 9, SHAPE).astype("float32")
    u, v = constant_value(a), constant_value(b)
    np.testing.assert_array_equal(run(after, x)[0], x * u * v if operator == "multiply" else x + u + v)
    (merged,) = (argument for argument in bindings(after)[0].value.args if is_constant(argument))
    assert constant_value(merged).dtype == np.float32


def test_three_constants_become_one(build, operators):
    a, b, c = float32(2), float32(3), float32(5)
    mod = build(lambda e, x: e(op.multiply(e(op.multiply(e(op.multiply(x, a)), b)), c)), SHAPE)
    after = merge_scales(mod)
    assert operators(after) == ["multiply"]
    assert constant_value(bindings(after)[0].value.args[1]) == 30


def test_factors_of_different_axes_stay_apart(build):
    """Together they would be as large as the tensor."""

    def body(emit, x):
        scaled = emit(op.multiply(x, constant(8)))
        return emit(op.multiply(emit(op.multiply(scaled, constant(3, 1, 1))), constant(4, 1)))

    check_stays(build(body, SHAPE))


@pytest.mark.parametrize("operator", ["multiply", "add"])
def test_factors_of_the_same_axis_meet_across_those_of_others(build, run, operators, operator):
    """As of XNOR-Net++ before a batch norm: channel, row, column, and channel again."""
    combine, constants = getattr(op, operator), [constant(8), constant(3, 1, 1), constant(4, 1), constant(8)]

    def body(emit, x):
        for factor in constants:
            x = emit(combine(x, factor))
        return x

    before = build(body, SHAPE)
    after = merge_scales(before)
    assert operators(after) == [operator] * 3
    x = RNG.integers(-8, 9, SHAPE).astype("float32")
    np.testing.assert_array_equal(run(after, x)[0], run(before, x)[0])


def test_a_factor_that_is_huge_passes_no_other(build):
    huge = relax.const(np.full(8, 2.0**30, np.float32))

    def body(emit, x):
        scaled = emit(op.multiply(emit(op.multiply(x, constant(8))), constant(3, 1, 1)))
        return emit(op.multiply(scaled, huge))

    check_stays(build(body, SHAPE))


def test_a_value_that_something_else_reads_stays(build):
    def body(emit, x):
        scaled = emit(op.multiply(x, constant(8)))
        return emit(op.add(scaled, emit(op.multiply(scaled, constant(8)))))

    check_stays(build(body, SHAPE))


@pytest.mark.parametrize("operator", ["multiply", "add"])
def test_a_value_that_is_an_output_stays(build, operator):
    combine = getattr(op, operator)

    def body(emit, x):
        scaled = emit(combine(x, constant(8)))
        return scaled, emit(combine(scaled, constant(8)))

    check_stays(build(body, SHAPE))


@pytest.mark.parametrize("first, second", [(op.multiply, op.add), (op.add, op.multiply)])
def test_a_scale_and_a_bias_stay(build, first, second):
    check_stays(build(lambda e, x: e(second(e(first(x, constant(8))), constant(8))), SHAPE))


@pytest.mark.parametrize("combine", [op.subtract, op.divide, op.maximum])
def test_other_operators_stay(build, combine):
    check_stays(build(lambda e, x: e(combine(e(combine(x, constant(8))), constant(8))), SHAPE))


def test_what_is_no_constant_stays(build):
    def body(emit, x, y):
        return emit(op.multiply(emit(op.multiply(x, y)), constant(8)))

    check_stays(build(body, SHAPE, SHAPE))
    check_stays(build(lambda e, x, y: e(op.multiply(e(op.multiply(x, constant(8))), y)), SHAPE, SHAPE))


@pytest.mark.parametrize(
    "combine, a, b",
    [
        (op.multiply, 1e30, 1e30),  # infinite
        (op.multiply, -1e30, 1e30),
        (op.add, 3e38, 3e38),
        (op.multiply, 1e-30, 1e-30),  # 0
        (op.multiply, 1e-20, 1e-22),  # too small for all of a float's digits
    ],
)
def test_what_leaves_the_range_of_a_float_stays(build, combine, a, b):
    """x = 1e-30 or 1e30 may bring it back: then merging would change all of the result."""
    check_stays(build(lambda e, x: e(combine(e(combine(x, float32(a))), float32(b))), SHAPE))


def test_a_scale_of_zero_is_merged(build, operators):
    """A channel that a network switched off; nothing is lost there."""
    scales = relax.const(np.float32([0, 1, 2, 3, 0, 1, 2, 3]))
    mod = build(lambda e, x: e(op.multiply(e(op.multiply(x, scales)), float32(0.5))), SHAPE)
    assert operators(merge_scales(mod)) == ["multiply"]
