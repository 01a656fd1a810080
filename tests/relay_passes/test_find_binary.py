"""What is binary is found by values and producers, computes the same, and what is not has its reason."""

import numpy as np
import pytest
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.ir.notes import CONSTANT_NOTE, SIGN_NOTE
from relay_passes.ir.weight_planes import weight_planes
from relay_passes.mark_layers import mark_layers
from relay_passes.sink_transposes import sink_transposes
from schedules.targets.generic import GENERIC
from schedules.targets.x86_avx512 import X86_AVX512

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (2, 20, 5, 6)


def number(value):
    return relax.const(value, "float32")


def signs(*shape):
    return RNG.choice(np.float32([-1, 1]), shape)


def conv(x, weights=None):
    weights = signs(7, 20, 3, 3) if weights is None else weights
    return op.nn.conv2d(x, relax.const(weights.astype("float32")), padding=(1, 1, 0, 2))


def find(mod, target=GENERIC):
    """(the module, the table)."""
    return find_binary(sink_transposes(mark_layers(mod, {})), target)


def image(shape=SHAPE):
    """Normal numbers, an eighth of them 0."""
    return RNG.normal(size=shape).astype("float32") * (RNG.random(shape) > 0.125)


def bit(emit, x, compare="greater_equal", yes=1.0, no=-1.0, at=0.0):
    return emit(op.where(emit(getattr(op, compare)(x, number(at))), number(yes), number(no)))


# Exactly the values of the network, at 0 too.
TWO_VALUED = {
    **{compare: lambda emit, x, compare=compare: bit(emit, x, compare)
       for compare in ("greater_equal", "greater", "less_equal", "less")},
    **{f"{yes} or {no}": lambda emit, x, yes=yes, no=no: bit(emit, x, "greater", yes, no)
       for yes, no in ((-1, 1), (0.25, -0.25), (0, 1), (1, 0), (0, -2), (-2, 0), (2, -1), (1, 2),
                       (-3, -0.5))},
    "a number compared with": lambda emit, x: emit(op.where(
        emit(op.less(number(0.5), x)), number(1), number(-1))),
    "a threshold per channel": lambda emit, x: emit(op.where(
        emit(op.greater_equal(x, relax.const(image((20, 1, 1))))), number(1), number(-1))),
    "equal": lambda emit, x: emit(op.astype(emit(op.equal(x, number(0))), "float32")),
    "astype": lambda emit, x: emit(op.astype(emit(op.greater(x, number(0))), "float32")),
    "2 b - 1": lambda emit, x: emit(op.subtract(emit(op.multiply(number(2), emit(op.astype(
        emit(op.greater(x, number(0))), "float32")))), number(1))),
    "1 - 2 b": lambda emit, x: emit(op.subtract(number(1), emit(op.multiply(emit(op.astype(
        emit(op.greater(x, number(0))), "float32")), number(2))))),
    "(b - 0.5) / -0.5": lambda emit, x: emit(op.divide(emit(op.subtract(emit(op.astype(
        emit(op.greater(x, number(0))), "float32")), number(0.5))), number(-0.5))),
    "negative": lambda emit, x: emit(op.negative(bit(emit, x))),
    "scaled": lambda emit, x: emit(op.multiply(bit(emit, x), number(-0.3))),
    "by way of int8": lambda emit, x: emit(op.astype(emit(op.astype(bit(emit, x), "int8")), "float32")),
    "max_pool": lambda emit, x: emit(op.nn.max_pool2d(bit(emit, x), (3, 3), (1, 1), (1, 1))),
    "sign of relu": lambda emit, x: emit(op.sign(emit(op.nn.relu(x)))),
    "sign of a clip from 0": lambda emit, x: emit(op.sign(emit(op.clip(x, 0, 3)))),
}  # fmt: skip


@pytest.mark.parametrize("name", TWO_VALUED)
def test_two_valued_activations(build, run, operators, name):
    before = build(lambda emit, x: emit(conv(TWO_VALUED[name](emit, x))), SHAPE)
    after, [layer] = find(before)
    assert layer.binarized, layer.reason
    assert "bibench.convolution" not in operators(after)
    x = image()
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("moved", [True, False])
def test_sign_is_1_at_an_accidental_0_and_the_table_says_so(build, run, moved):
    def body(emit, x):
        bits = emit(op.sign(emit(op.add(x, relax.const(SHIFT)))))
        if moved:  # what the permutations of an image leave behind, where they do not meet
            bits = emit(op.permute_dims(bits, [0, 1, 3, 2]))
        return emit(conv(emit(op.multiply(bits, number(0.7)))))

    before = build(body, SHAPE)
    after, [layer] = find(before)
    assert layer.binarized and layer.notes == SIGN_NOTE
    x = np.where(RNG.random(SHAPE) < 0.1, -SHIFT, image()).astype("float32")
    above = np.where(x == -SHIFT, 1 - SHIFT, x).astype("float32")
    [got] = run(after, x)
    np.testing.assert_allclose(got, run(before, above)[0], rtol=1e-5, atol=1e-5)


SHIFT = RNG.normal(size=(20, 1, 1)).astype("float32") + 1
EVEN = {"weights": signs(20, 20, 2, 2)}


def integers(emit, x, padding=0):
    """Sums of 80 signs, every second of which is even."""
    return emit(op.nn.conv2d(bit(emit, x), relax.const(EVEN["weights"]), padding=padding))


def gate(emit, x):
    squeezed = emit(op.mean(emit(op.nn.relu(x)), [2, 3], keepdims=True))
    return emit(op.multiply(emit(op.nn.relu(x)), emit(op.sigmoid(squeezed))))


def hardswish(emit, x):
    return emit(op.multiply(x, emit(op.divide(emit(op.clip(emit(op.add(x, number(3))), 0, 6)), number(6)))))


# What stands before the sign, and is never negative: signs of 0 and 1.
RECTIFIED = {
    "scaled": lambda emit, x: emit(op.multiply(emit(op.nn.relu(x)), number(0.5))),
    "added": lambda emit, x: emit(op.add(emit(op.nn.relu(x)), emit(op.nn.relu(emit(op.negative(x)))))),
    "concatenated": lambda emit, x: emit(op.strided_slice(emit(op.concat(
        [emit(op.nn.relu(x)), emit(op.abs(x))], 1)), [1], [10], [30])),
    "gated": gate,
    "padded": lambda emit, x: emit(op.strided_slice(emit(op.nn.pad(
        emit(op.nn.relu(x)), (0, 0, 0, 0, 1, 1, 1, 1))), [2, 3], [0, 0], [5, 6])),
    "maximum": lambda emit, x: emit(op.maximum(emit(op.multiply(x, number(0.1))), number(0))),
    "upsampled": lambda emit, x: emit(op.image.resize2d(
        emit(op.nn.relu(x)), (5, 6), method="nearest_neighbor")),
    "split": lambda emit, x: emit(op.concat([emit(relax.TupleGetItem(emit(op.split(
        emit(op.nn.relu(x)), 2, 1)), i)) for i in (1, 0)], 1)),
    "where": lambda emit, x: emit(op.where(emit(op.greater(x, number(0.2))), x, number(0))),
    "times its own truth": lambda emit, x: emit(op.multiply(x, emit(op.astype(
        emit(op.greater(x, number(0))), "float32")))),
    "x + |x|": lambda emit, x: emit(op.add(x, emit(op.abs(x)))),
    "relu6 and a shift upwards": lambda emit, x: emit(op.add(
        emit(op.clip(x, 0, 6)), relax.const(np.maximum(SHIFT, 0)))),
    "averaged": lambda emit, x: emit(op.nn.avg_pool2d(emit(op.nn.relu(x)), (3, 3), (1, 1), (1, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", RECTIFIED)
def test_the_sign_of_what_is_never_negative_is_0_or_1(build, run, name):
    before = build(lambda emit, x: emit(conv(emit(op.sign(RECTIFIED[name](emit, x))))), SHAPE)
    after, [layer] = find(before)
    assert layer.binarized and not layer.notes, layer.reason
    x = image()
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-5)


# What stands before the sign, over shifted pixels, and what of it is 0 as a matter of course.
THREE_VALUED = {
    "pixels": (lambda emit, x: emit(op.subtract(x, relax.const(SHIFT))), "the network's input"),
    "a padding": (lambda emit, x: emit(op.strided_slice(emit(op.nn.pad(emit(op.add(x, number(0.3))), (
        0, 0, 0, 0, 1, 1, 1, 1))), [2, 3], [0, 0], [5, 6])), "a padding"),
    "sums of an even number of signs": (integers, "a sum of whole steps"),
    "such sums, scaled": (lambda emit, x: emit(op.multiply(
        integers(emit, x), relax.const(np.abs(SHIFT)))), "a sum of whole steps"),
    "hardswish": (hardswish, "a rectifier"),
    "two rectifiers": (lambda emit, x: emit(op.subtract(
        emit(op.nn.relu(x)), emit(op.nn.relu(emit(op.add(x, number(-1))))))), "a rectifier"),
    "a rounding": (lambda emit, x: emit(op.round(x)), "a rounding"),
    "a channel times 0": (lambda emit, x: emit(op.multiply(emit(op.add(x, number(0.3))), relax.const(
        np.float32([0, *[1] * 19]).reshape(20, 1, 1)))), "a factor of 0"),
    "nobody knows": (lambda emit, x: emit(op.cumprod(x, 1)), "what cumprod gives"),
}  # fmt: skip


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("name", THREE_VALUED)
def test_a_sign_of_three_values_is_two_planes_of_bits(build, run, name, scaled):
    make, cause = THREE_VALUED[name]

    def body(emit, x):
        signs = emit(op.sign(make(emit, emit(op.add(x, relax.const(SHIFT))))))
        return emit(conv(emit(op.negative(emit(op.multiply(signs, number(0.7))))) if scaled else signs))

    before = build(body, SHAPE)
    after, table = find(before)
    note = f"the sign before it has three values, in two planes of bits: {cause} is often 0"
    assert table[-1].binarized and table[-1].notes == note
    x = np.where(RNG.random(SHAPE) < 0.3, 0, image()).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compare", ["greater_equal", "less"])
@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_a_layer_behind_a_rectifier_is_constant_and_the_table_says_so(build, run, compare, shift):
    """What trains a network with a ReLU before the sign: all of its signs are +1."""

    def body(emit, x):
        return emit(conv(bit(emit, emit(op.add(emit(op.nn.relu(x)), number(shift))), compare)))

    before = build(body, SHAPE)
    after, [layer] = find(before)
    assert layer.binarized and layer.notes == ("" if shift else CONSTANT_NOTE)
    x = image()
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-5)


def test_products_of_a_sign_of_three_values_stay_float(build):
    before = build(lambda emit, x, y: emit(op.matmul(emit(op.sign(x)), emit(op.sign(y)))), (4, 8), (8, 5))
    _, [layer] = find(before)
    assert (
        layer.reason == "a product of two activations has a kernel for two values only, not for three or more"
    )


EXACT = {
    "a sign that is never 0": lambda emit, x: emit(op.add(emit(op.sign(x)), number(0.1))),
    "sums of signs, off 0": lambda emit, x: emit(op.add(integers(emit, x), number(1))),
    "sums of signs, off 0 in each channel": lambda emit, x: emit(op.add(
        emit(op.multiply(integers(emit, x), number(0.5))), relax.const(SHIFT))),
    "a softened step": lambda emit, x: emit(op.subtract(emit(op.astype(
        emit(op.greater(x, number(0))), "float32")), number(0.5))),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_the_sign_of_what_is_never_0_needs_no_note(build, run, name):
    before = build(lambda emit, x: emit(conv(emit(op.sign(EXACT[name](emit, x))))), SHAPE)
    after, table = find(before)
    assert table[-1].binarized and not table[-1].notes, table[-1].reason
    x = image()
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-5)


NOT_BINARY = {
    "relu": (lambda emit, x: emit(op.nn.relu(x)), "is not binary: it comes from relu, not from a sign"),
    "the input": (lambda emit, x: x, "its input is the network's input, which is not binary"),
    "a float added": (lambda emit, x: emit(op.add(bit(emit, x), x)), "comes from add"),
    "one value": (lambda emit, x: bit(emit, x, "greater", 1.0, 1.0), "comes from where"),
    "times a vector": (lambda emit, x: emit(op.multiply(bit(emit, x), relax.const(image((6,))))), "multiply"),
    "lost in a sum": (lambda emit, x: emit(op.add(bit(emit, x), number(1e9))), "comes from add"),
    "0 times a sign": (lambda emit, x: emit(op.multiply(bit(emit, x), number(0))), "comes from multiply"),
    "beside other numbers": (lambda emit, x: emit(op.concat(
        [bit(emit, x), relax.const(image((2, 20, 5, 6)))], 0)), "comes from concat"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_BINARY)
def test_other_activations_have_a_reason(build, run, name):
    make, reason = NOT_BINARY[name]
    before = build(lambda emit, x: emit(conv(make(emit, x))), SHAPE)
    after, [layer] = find(before)
    assert not layer.binarized and reason in layer.reason
    x = image()
    [expected] = run(before, x)
    np.testing.assert_allclose(run(after, x)[0], expected, atol=1e-6 * np.abs(expected).max())


def test_a_where_whose_condition_is_broadcast(build, run):
    """The condition has fewer elements than the activation: its bits are no packing of it."""
    ones = relax.const(np.ones(SHAPE, "float32"))

    def body(emit, x):
        rows = emit(op.max(x, [1, 3], keepdims=True))
        return emit(conv(emit(op.where(emit(op.greater(rows, number(2))), ones, number(-1)))))

    before = build(body, SHAPE)
    after, _ = find(before)
    x = image()
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-5)


def test_weights_of_one_magnitude_per_channel(build, run):
    """A channel of zeros among them, and one whose zero is negative."""
    weights = signs(7, 20, 3, 3) * np.float32([0.5, 1, 2, 0, 3, 2.0**-66, -0.0])[:, None, None, None]
    before = build(lambda emit, x: emit(conv(bit(emit, x), weights)), SHAPE)
    after, [layer] = find(before)
    assert layer.binarized
    assert layer.macs == 2 * 4 * 7 * 7 * 9 * 20
    assert layer.weight_bytes == 7 * 9 * 3
    x = image()
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5)


def test_a_weight_of_0_takes_a_second_plane(build, run):
    zero = signs(7, 20, 3, 3)
    zero[4, 3, 2, 1] = 0
    before = build(lambda emit, x: emit(conv(bit(emit, x), zero)), SHAPE)
    after, [layer] = find(before)
    assert layer.notes == "its weights take up to 3 values in an output channel, in 2 planes of bits"
    assert layer.weight_bytes == 2 * 7 * 9 * 3
    x = image()
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-5)


def test_other_weights_have_a_reason(build):
    zero = signs(7, 20, 3, 3)
    zero[4, 3, 2, 1] = 0
    many = RNG.choice(3.0 ** np.arange(7), (7, 20, 3, 3))
    many[2, 5] = 0
    for weights, reason in (
        (many, "output channel 0 has 7 different values"),
        (RNG.normal(size=(7, 20, 3, 3)), "output channel 0 has 180 different values"),
    ):
        _, [layer] = find(build(lambda emit, x, w=weights: emit(conv(bit(emit, x), w)), SHAPE))
        assert layer.reason == f"its weights are not +-alpha, nor alpha s + beta: {reason}"
        assert layer.weight_bytes == 4 * 7 * 180
    _, [layer] = find(build(lambda emit, x: emit(conv(x, zero)), SHAPE))
    assert layer.reason.count(";") == 1  # both the input and the weights


def test_layers_without_a_kernel_have_a_reason(build):
    weights = relax.const(signs(20, 3, 2, 2))
    _, [layer] = find(
        build(lambda emit, x: emit(op.nn.conv2d_transpose(bit(emit, x), weights, groups=2)), SHAPE)
    )
    assert (layer.op, layer.reason) == (
        "conv2d_transpose",
        "conv2d_transpose with groups has no binary kernel",
    )
    assert layer.macs == 2 * 20 * 5 * 6 * 3 * 4
    _, [layer] = find(build(lambda emit, x, w: emit(op.nn.conv2d(bit(emit, x), w)), SHAPE, (7, 20, 3, 3)))
    assert layer.reason == "its weights are computed at run time"


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), (2, 3, 4, 5)])
def test_linear_layers(build, run, shape):
    weights = relax.const(signs(5, 40))
    before = build(lambda emit, x: emit(op.matmul(bit(emit, x), weights)), shape)
    after, [layer] = find(before)
    assert layer.binarized and layer.op == "linear"
    x = image(shape)
    np.testing.assert_array_equal(run(after, x)[0], run(before, x)[0])


@pytest.mark.parametrize("name", ["2 b - 1", "1 - 2 b", "(b - 0.5) / -0.5", "negative", "scaled"])
def test_scaled_and_shifted_where_nothing_is_turned(build, run, name):
    weights = relax.const(signs(5, 40))
    before = build(lambda emit, x: emit(op.matmul(TWO_VALUED[name](emit, x), weights)), (4, 5))
    x = image((4, 5))
    np.testing.assert_allclose(run(find(before)[0], x)[0], run(before, x)[0], rtol=1e-5)


VALUES = ((1.0, -1.0), (0.3, -0.3), (1.0, 0.0), (0.0, -2.0), (0.7, -0.2), (-0.5, -3.0), (1.5, 0.25))


def shape_of_layer(rng):
    """(the image, the weights, the attributes) of a convolution of any kind in one or two dimensions."""
    spatial, groups = int(rng.integers(1, 3)), int(rng.choice([1, 1, 2, 5]))
    channels, outs = groups * int(rng.integers(1, 12)), groups * int(rng.integers(1, 9))
    kernel, dilation = rng.integers(1, 4, spatial), rng.integers(1, 3, spatial)
    image = (int(rng.integers(1, 3)), channels, *rng.integers(5, 9, spatial))
    attributes = {
        "strides": rng.integers(1, 3, spatial).tolist(),
        "padding": rng.integers(0, 4, 2 * spatial).tolist(),
        "dilation": dilation.tolist(),
        "groups": groups,
    }
    return tuple(map(int, image)), (outs, channels // groups, *map(int, kernel)), attributes


@pytest.mark.parametrize("seed", range(18))
def test_two_values_of_any_kind_in_layers_of_any_shape(build, run, operators, seed):
    """Activations of two numbers, and in two of three cases weights alpha s + beta."""
    rng = np.random.default_rng(seed)
    shape, extents, attributes = shape_of_layer(rng)
    column = (-1, *[1] * (len(extents) - 1))
    weights = rng.choice([-1, 1], extents) * rng.uniform(0.1, 2, extents[0]).reshape(column)
    if seed % 3:
        weights = weights + (rng.normal(size=extents[0]) * (rng.random(extents[0]) < 0.8)).reshape(column)
    layer_of = op.nn.conv2d if len(shape) == 4 else op.nn.conv1d
    yes, no = VALUES[seed % len(VALUES)]

    def body(emit, x):
        return emit(
            layer_of(bit(emit, x, "greater", yes, no), relax.const(weights.astype("float32")), **attributes)
        )

    before = build(body, shape)
    after, [layer] = find(before)
    assert layer.binarized and not layer.notes, layer.reason
    assert "bibench.convolution" not in operators(after)
    x = image(shape)
    [expected] = run(before, x)
    np.testing.assert_allclose(run(after, x)[0], expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(9))
def test_a_few_values_in_layers_of_any_shape(build, run, operators, seed):
    """Sums of two or three bits with scales of their own, of one tensor or of two; weights alpha s + beta."""
    rng = np.random.default_rng(seed)
    shape, extents, attributes = shape_of_layer(rng)
    column = (-1, *[1] * (len(extents) - 1))
    weights = rng.choice([-1, 1], extents) * rng.uniform(0.1, 2, extents[0]).reshape(column)
    weights = weights + (seed % 3 > 0) * rng.normal(size=extents[0]).reshape(column)
    layer_of = op.nn.conv2d if len(shape) == 4 else op.nn.conv1d
    values = rng.normal(size=(2 + seed % 2, 2)).astype("float32") * (rng.random((2 + seed % 2, 2)) < 0.7)

    def body(emit, x, y):
        total = None
        for i, (yes, no) in enumerate(values.tolist()):
            more = bit(emit, y if i == seed % 4 else x, "greater", yes + 0.1, no, at=i / 2)
            total = more if total is None else emit(op.add(total, more))
        return emit(layer_of(total, relax.const(weights.astype("float32")), **attributes))

    before = build(body, shape, shape)
    after, [layer] = find(before)
    assert layer.binarized and f"in {len(values)} planes of bits" in layer.notes, layer.reason or layer.notes
    assert "bibench.convolution" not in operators(after)
    inputs = image(shape), image(shape)
    [expected] = run(before, *inputs)
    np.testing.assert_allclose(
        run(after, *inputs)[0], expected, rtol=1e-5, atol=4e-6 * np.abs(expected).max()
    )


@pytest.mark.parametrize("seed", range(12))
def test_weights_that_are_sums_of_signs_in_layers_of_any_shape(build, run, operators, seed):
    """Of two or three planes with scales of each channel, and a beta; activations of bits or of sums."""
    rng = np.random.default_rng(seed)
    shape, extents, attributes = shape_of_layer(rng)
    extents = (extents[0], 16, *extents[2:])
    shape = (shape[0], 16 * attributes["groups"], *shape[2:])
    column, count = (-1, *[1] * (len(extents) - 1)), 2 + seed % 2
    weights = np.zeros(extents)
    for k in range(count):
        scale = rng.uniform(0.7, 1, extents[0]) / 3**k
        weights += rng.choice([-1, 1], extents) * scale.reshape(column)
    weights += (seed % 3 == 0) * rng.normal(size=extents[0]).reshape(column)
    layer_of = op.nn.conv2d if len(shape) == 4 else op.nn.conv1d
    yes, no = VALUES[seed % len(VALUES)]

    def body(emit, x):
        values = bit(emit, x, "greater", yes, no)
        if seed % 4 == 1:
            values = emit(op.add(values, bit(emit, x, "greater", 0.4, 0.1, at=0.5)))
        return emit(layer_of(values, relax.const(weights.astype("float32")), **attributes))

    before = build(body, shape)
    after, [layer] = find(before)
    found = len(weight_planes(weights.astype("float32")).planes)
    assert layer.binarized and f"in an output channel, in {found} planes of bits" in layer.notes, layer
    assert "bibench.convolution" not in operators(after)
    x = image(shape)
    [expected] = run(before, x)
    np.testing.assert_allclose(run(after, x)[0], expected, rtol=1e-5, atol=4e-6 * np.abs(expected).max())


def test_so_many_sums_of_bits_that_bytes_take_no_longer(build):
    rng = np.random.default_rng(0)
    scales = 3.0 ** -np.arange(4).reshape(-1, 1, 1, 1, 1)
    weights = (rng.choice([-1, 1], (4, 7, 20, 3, 3)) * scales).sum(0)

    def body(emit, x):
        total = bit(emit, x)
        for i in (1, 2):
            total = emit(op.add(total, bit(emit, x, yes=0.3**i, no=0.0, at=0.2 * i)))
        return emit(conv(total, weights))

    _, [layer] = find(build(body, SHAPE))
    parts = "its weights are sums of 4 signs, and its input of 3"
    assert layer.reason == f"{parts}: 12 sums of bits, and more than 9 take as long as one of bytes"


SIDES = {"+-a": (-0.5, 0.5), "0 and a": (0.5, 0.0), "-a and 0": (-2.0, 0.0)}


@pytest.mark.parametrize("left", SIDES)
@pytest.mark.parametrize("right", SIDES)
def test_products_of_bits_that_stand_for_0_and_1(build, run, operators, left, right):
    shapes = (2, 3, 4, 40), (2, 3, 40, 33)

    def body(emit, x, y):
        left_bits, right_bits = bit(emit, x, "greater", *SIDES[left]), bit(emit, y, "less", *SIDES[right])
        return emit(op.matmul(left_bits, right_bits))

    before = build(body, *shapes)
    after, [layer] = find(before, GENERIC if left == right else X86_AVX512)
    assert layer.binarized and "matmul" not in operators(after), layer.reason
    assert operators(after).count("bibench.sign_sums") == (left != "+-a") + (right != "+-a")
    inputs = [image(shape) for shape in shapes]
    np.testing.assert_allclose(run(after, *inputs)[0], run(before, *inputs)[0], rtol=1e-6)


def masked(emit, x, value, bits):
    """Where one row of x is above 0.5, `value`."""
    row = emit(op.strided_slice(x, [2], [0], [1]))
    return emit(op.where(emit(op.greater(row, number(0.5))), number(value), bits))


def truth_of(emit, x, compare="greater_equal"):
    return emit(op.astype(emit(getattr(op, compare)(x, number(0))), "float32"))


# 0 and another number, as networks write it; of images with zeros in them.
ZERO_ONE = {
    "sign / 2 + 1 / 2": lambda emit, x: emit(op.divide(emit(op.add(bit(emit, x), number(1))), number(2))),
    "a mask before the sign": lambda emit, x: bit(emit, masked(emit, x, -1e4, x), no=0.0),
    "a mask behind it": lambda emit, x: masked(emit, x, 0.0, bit(emit, x, no=0.0)),
    "a mask that lets all in": lambda emit, x: masked(emit, x, 3.0, bit(emit, x, yes=3.0, no=0.0)),
    "one or the other": lambda emit, x: emit(op.where(
        emit(op.greater(x, number(1))), bit(emit, x, no=0.0), truth_of(emit, x, "less"))),
    "times a mask": lambda emit, x: emit(op.multiply(
        bit(emit, x, no=0.0), truth_of(emit, emit(op.strided_slice(x, [2], [0], [1])), "less"))),
    "-1 where both": lambda emit, x: emit(op.multiply(
        bit(emit, x, no=0.0), bit(emit, emit(op.abs(x)), "less", -1.0, 0.0, 1.0))),
    "moved truths": lambda emit, x: emit(op.astype(emit(op.reshape(emit(
        op.greater(x, number(0))), SHAPE)), "float32")),
    "a mask alone": lambda emit, x: emit(op.where(emit(op.greater(emit(op.strided_slice(
        x, [2], [0], [1])), number(0))), relax.const(np.ones(SHAPE, "float32")), number(0))),
    "clip of a sign": lambda emit, x: emit(op.clip(emit(op.sign(x)), 0, 1)),
    "relu of a sign, scaled": lambda emit, x: emit(op.multiply(
        emit(op.nn.relu(emit(op.sign(x)))), number(0.3))),
    "where a sign is -1, 0": lambda emit, x: emit(op.where(emit(op.equal(
        emit(op.sign(x)), number(-1))), number(0), emit(op.sign(x)))),
    "where a sign was -1, 0": lambda emit, x: (lambda signs: emit(op.where(emit(op.equal(
        signs, number(-1))), number(0), signs)))(emit(op.sign(x))),
    "not below": lambda emit, x: emit(op.astype(emit(op.greater(
        emit(op.sign(x)), number(-0.5))), "float32")),
    "where a sign is 0": lambda emit, x: emit(op.subtract(number(1), emit(op.abs(emit(op.sign(x)))))),
}  # fmt: skip


@pytest.mark.parametrize("name", ZERO_ONE)
def test_0_and_1_as_networks_write_it(build, run, name):
    columns = (2, 20, 6, 7)

    def body(emit, x, y):
        return emit(op.matmul(ZERO_ONE[name](emit, x), bit(emit, y)))

    before = build(body, SHAPE, columns)
    after, [layer] = find(before)
    assert layer.binarized and not layer.notes, layer.reason
    x, y = image(), image(columns)
    np.testing.assert_allclose(run(after, x, y)[0], run(before, x, y)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("leading, depth, columns", [((), 3, 5), ((3,), 40, 70), ((2, 3), 40, 33)])
@pytest.mark.parametrize("target", [GENERIC, X86_AVX512], ids=lambda t: t.name)
def test_products_of_two_signs(build, run, operators, leading, depth, columns, target):
    shapes = (*leading, 4, depth), (*leading, depth, columns)

    def body(emit, x, y):
        return emit(op.matmul(bit(emit, x, "greater", -0.5, 0.5), bit(emit, y, "less", 3.0, -3.0)))

    before = build(body, *shapes)
    after, [layer] = find(before, target)
    assert layer.binarized and "matmul" not in operators(after)
    inputs = [image(shape) for shape in shapes]
    np.testing.assert_allclose(run(after, *inputs)[0], run(before, *inputs)[0], rtol=1e-6)


@pytest.mark.parametrize(
    "left, right, shape, reason",
    [
        ((1, -1), (2, -1), (3, 5, 4), "its second operand takes the values -1 and 2"),
        ((1, -1), (1, -1), (5, 4), "equal leading extents"),
    ],
)
def test_other_products_stay_float(build, run, left, right, shape, reason):
    def body(emit, x, y):
        return emit(op.matmul(bit(emit, x, "greater", *left), bit(emit, y, "greater", *right)))

    before = build(body, (3, 4, 5), shape)
    after, [layer] = find(before)
    assert not layer.binarized and reason in layer.reason
    inputs = image((3, 4, 5)), image(shape)
    np.testing.assert_array_equal(run(after, *inputs)[0], run(before, *inputs)[0])


def test_one_packing_for_layers_that_read_alike(build, run, operators):
    """Two convolutions of one group share it, that of two groups has its own."""
    grouped = relax.const(signs(4, 10, 3, 3))

    def body(emit, x):
        bits = bit(emit, emit(op.permute_dims(x, [0, 3, 1, 2])))  # which meets those of the convolutions
        return emit(conv(bits)), emit(conv(bits)), emit(op.nn.conv2d(bits, grouped, groups=2))

    shape = (2, 5, 6, 20)
    before = build(body, shape)
    after, table = find(before)
    assert [layer.binarized for layer in table] == [True] * 3
    assert operators(after).count("bibench.pack") == 2
    x = image(shape)
    for ours, plain in zip(run(after, x), run(before, x), strict=True):
        np.testing.assert_array_equal(ours, plain)
