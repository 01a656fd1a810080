import numpy as np
import pytest
from tvm import relax

from relay_passes.expand_quantize import expand_quantize
from relay_passes.find_binary import find_binary
from relay_passes.mark_layers import mark_layers
from relay_passes.sink_transposes import sink_transposes
from schedules.targets.generic import GENERIC

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (1, 8, 5, 6)


def pair(emit, x, scale, zero):
    parameters = (relax.const(scale, "float32"), relax.const(zero, "int8"))
    return emit(op.dequantize(emit(op.quantize(x, *parameters, axis=1)), *parameters, axis=1))


def conv(x):
    return op.nn.conv2d(x, relax.const(RNG.choice(np.float32([-1, 1]), (4, 8, 3, 3))))


def found(mod):
    _, layers = find_binary(sink_transposes(mark_layers(expand_quantize(mod), {})), GENERIC)
    return [layer.binarized for layer in layers]


@pytest.mark.parametrize("scale, zero", [(1.0, 0), (0.25, 3), (0.1, -100)])
def test_computes_the_same(build, run, operators, scale, zero):
    before = build(lambda emit, x: pair(emit, x, scale, zero), SHAPE)
    after = expand_quantize(before)
    assert "quantize" not in operators(after)
    x = RNG.normal(0, 20, SHAPE).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-6)


def test_a_sign_between_a_pair_is_binary(build):
    def body(emit, x):
        return emit(conv(pair(emit, emit(op.sign(emit(op.add(x, relax.const(0.3))))), 0.5, 0)))

    assert found(build(body, SHAPE)) == [True]


@pytest.mark.parametrize("high, binary", [(1.0, True), (3.0, True), (9.0, False)])
def test_a_rounding_to_few_levels_is_binary(build, high, binary):
    mod = build(lambda emit, x: emit(conv(pair(emit, emit(op.clip(x, 0, high)), 1.0, 0))), SHAPE)
    assert found(mod) == [binary]


def test_parameters_that_differ_stay(build, operators):
    def body(emit, x):
        quantized = emit(op.quantize(x, relax.const(1.0), relax.const(0, "int8"), axis=1))
        return emit(op.dequantize(quantized, relax.const(2.0), relax.const(0, "int8"), axis=1))

    assert operators(expand_quantize(build(body, SHAPE))) == ["quantize", "dequantize"]
