"""Layers of one pixel that follow each other become one kernel, and compute the same."""

import numpy as np
import pytest
import tvm
from tvm import relax

from relay_passes import finish, lower
from schedules.targets.generic import GENERIC
from tests.relay_passes.test_lower_kernels import call, compiled

RNG = np.random.default_rng(0)
op = relax.op


def layer(emit, x, out):
    weights = RNG.standard_normal((out, int(x.ty.shape[1]), 1, 1)).astype("float32")
    bias = relax.const(RNG.standard_normal((out, 1, 1)).astype("float32"))
    return emit(op.add(emit(op.nn.conv2d(x, relax.const(weights))), bias))


def mean(emit, x):
    return emit(op.mean(x, [2, 3], keepdims=True))


def gate(emit, x):
    """Squeeze and excitation."""
    narrow = emit(op.nn.relu(layer(emit, mean(emit, x), 3)))
    return emit(op.multiply(x, emit(op.sigmoid(layer(emit, narrow, 20)))))


def linear_gate(emit, x):
    """By matrix products; its mean has no extents of 1."""
    pixel = emit(op.mean(x, [2, 3]))
    for out, after in ((3, op.nn.relu), (20, op.sigmoid)):
        weights = RNG.standard_normal((int(pixel.ty.shape[1]), out)).astype("float32")
        pixel = emit(after(emit(op.matmul(pixel, relax.const(weights)))))
    return emit(op.multiply(x, emit(op.reshape(pixel, (1, 20, 1, 1)))))


def lone_layer(emit, x):
    return layer(emit, mean(emit, x), 7)


def mean_of_rows(emit, x):
    """Of each row, whose pixels are several still."""
    return layer(emit, emit(op.mean(x, [3], keepdims=True)), 7)


def mean_that_is_read_twice(emit, x):
    average = mean(emit, x)
    return emit(op.add(layer(emit, average, 20), average))


def layer_that_is_a_result(emit, x):
    first = layer(emit, mean(emit, x), 6)
    return first, layer(emit, first, 5)


KERNELS = {
    gate: ["float_gate", "multiply"],
    linear_gate: ["float_gate", "multiply"],
    lone_layer: ["float_gate"],
    mean_of_rows: ["mean", "float_convolution"],
    mean_that_is_read_twice: ["mean", "float_convolution"],
    layer_that_is_a_result: ["float_gate", "float_convolution"],
}


@pytest.mark.parametrize("network", KERNELS, ids=lambda n: n.__name__)
def test_layers_of_one_pixel_are_one_kernel(build, operators, network):
    before = build(lambda emit, x: network(emit, layer(emit, x, 20)), (1, 20, 6, 5))
    lowered = lower(before, {}, GENERIC)
    names = [name.rstrip("0123456789") for name in operators(lowered.module)]
    names = [name for name in names if name not in ("transpose", "reshape", "permute_dims")]
    assert names == ["float_convolution", *KERNELS[network]]
    after = finish(lowered.module, tvm.target.Target({"kind": "llvm"}), GENERIC)
    x = RNG.standard_normal((1, 20, 6, 5)).astype("float32")
    for ours, plain in zip(call(compiled(after), x), call(compiled(before), x), strict=True):
        np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-4, atol=1e-5)


def test_of_several_images_each_layer_is_a_kernel(build, operators):
    lowered = lower(build(gate, (2, 20, 6, 5)), {}, GENERIC)
    assert not any(name.startswith("float_gate") for name in operators(lowered.module))


def test_the_kernel_is_known_by_its_last_layer(build):
    """And the others have a kernel of ours."""
    before = build(lambda emit, x: gate(emit, layer(emit, x, 20)), (1, 20, 6, 5))
    lowered = lower(before, {}, GENERIC)
    [stem, first, last] = [layer.name for layer in lowered.layers]
    assert lowered.emitted == (("float_convolution", stem), ("", first), ("float_gate", last))
