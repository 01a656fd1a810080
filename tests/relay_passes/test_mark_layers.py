import numpy as np
import pytest
from tvm import relax

from relay_passes.ir.operators import Named, attributes_of
from relay_passes.ir.rewrite import bindings, is_call
from relay_passes.mark_layers import mark_layers

RNG = np.random.default_rng(0)
op = relax.op


def constant(*shape):
    return relax.const(RNG.normal(size=shape).astype("float32"))


LAYERS = {
    "conv2d": ((2, 6, 7, 9), lambda x: op.nn.conv2d(
        x, constant(4, 3, 2, 3), strides=(2, 1), padding=(1, 0, 2, 3), dilation=(1, 2), groups=2),
        "bibench.convolution"),
    "conv1d": ((2, 6, 11), lambda x: op.nn.conv1d(
        x, constant(4, 3, 3), strides=2, padding=(2, 1), dilation=2, groups=2), "bibench.convolution"),
    "depthwise": ((1, 6, 5, 5), lambda x: op.nn.conv2d(
        x, constant(6, 1, 3, 3), padding=(1, 1), groups=6), "bibench.convolution"),
    "vector by matrix": ((5,), lambda x: op.matmul(x, constant(5, 7)), "bibench.matmul"),
    "matrix by matrix": ((4, 5), lambda x: op.matmul(x, constant(5, 7)), "bibench.matmul"),
    "matrices by matrix": ((3, 4, 5), lambda x: op.matmul(x, constant(5, 7)), "bibench.matmul"),
    "batches by matrix": ((2, 3, 4, 5), lambda x: op.matmul(x, constant(5, 7)), "bibench.matmul"),
    "product": ((2, 4, 5), lambda x: op.matmul(x, x_transposed(x)), "bibench.product"),
    "matrices by a column each": ((2, 4, 4), lambda x: op.matmul(
        x, op.strided_slice(x, [2], [1], [2])), "bibench.product"),
    "matrices by one column": ((2, 4, 4), lambda x: op.matmul(
        x, op.reshape(op.strided_slice(x, [0, 2], [0, 1], [1, 2]), (4, 1))), "bibench.product"),
    "matrix by matrices": ((4, 5), lambda x: op.matmul(x, constant(3, 5, 7)), "bibench.product"),
    "conv2d_transpose": ((1, 6, 5, 5), lambda x: op.nn.conv2d_transpose(
        x, constant(6, 3, 2, 2)), "bibench.named"),
    "conv3d": ((1, 2, 4, 5, 6), lambda x: op.nn.conv3d(x, constant(3, 2, 2, 2, 2)), "bibench.named"),
}  # fmt: skip


def x_transposed(x):
    return op.permute_dims(x, [0, 2, 1])


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_gets_its_operator_and_its_name(build, run, layer):
    shape, make, operator = LAYERS[layer]
    before = build(lambda emit, x: emit(make(x)), shape)
    imported = bindings(before)[-2].var.name  # the last names the result
    after = mark_layers(before, {imported: "encoder.layer"})
    [marked] = [
        b.value for b in bindings(after) if is_call(b.value) and b.value.op.name.startswith("bibench")
    ]
    assert marked.op.name == operator
    assert attributes_of(marked, Named).name == "encoder.layer"
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-4, atol=1e-5)


def test_a_product_with_one_column_is_computed_as_one_row(build, operators):
    column = relax.const(np.zeros((3, 5, 1), "float32"))
    after = mark_layers(build(lambda emit, x: emit(op.matmul(x, column)), (3, 4, 5)), {})
    assert operators(after) == ["permute_dims", "permute_dims", "bibench.product", "permute_dims"]


def test_weights_computed_at_run_time_keep_the_operator(build, run, operators):
    before = build(lambda emit, x, w: emit(op.nn.conv2d(x, w)), (1, 2, 4, 4), (3, 2, 2, 2))
    after = mark_layers(before, {})
    assert operators(after) == ["conv2d", "bibench.named"]
    inputs = [RNG.normal(size=shape).astype("float32") for shape in ((1, 2, 4, 4), (3, 2, 2, 2))]
    np.testing.assert_allclose(run(after, *inputs)[0], run(before, *inputs)[0], rtol=1e-4)
