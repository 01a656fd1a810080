import numpy as np
import pytest
from tvm import relax

from relay_passes.sink_transposes import sink_transposes

SHAPE = (2, 5, 6, 3)  # N, H, W, C
RNG = np.random.default_rng(0)
op = relax.op


def constant(*shape):
    return relax.const(RNG.normal(size=shape).astype("float32"))


def nchw(emit, x):
    return emit(op.permute_dims(x, [0, 3, 1, 2]))


def nhwc(emit, x):
    return emit(op.permute_dims(x, [0, 2, 3, 1]))


# On an image in NCHW; all keep four axes.
IMAGE_TO_IMAGE = {
    "relu": lambda emit, x: op.nn.relu(x),
    "clip": lambda emit, x: op.clip(x, -0.5, 0.5),
    "per channel": lambda emit, x: op.multiply(x, constant(1, 3, 1, 1)),
    "constant of rank 3": lambda emit, x: op.add(constant(3, 1, 1), x),
    "constant of rank 1, along the width": lambda emit, x: op.subtract(x, constant(6)),
    "constant of every element": lambda emit, x: op.maximum(x, constant(2, 3, 5, 6)),
    "one number": lambda emit, x: op.add(x, constant()),
    "sign": lambda emit, x: op.where(
        emit(op.greater_equal(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)),
    "residual": lambda emit, x: op.add(emit(op.exp(x)), x),
    "mean over the image": lambda emit, x: op.mean(x, [2, 3], keepdims=True),
    "sum over channels": lambda emit, x: op.sum(x, [1], keepdims=True),
    "max over the last axis": lambda emit, x: op.max(x, [-1], keepdims=True),
    "max_pool": lambda emit, x: op.nn.max_pool2d(x, (3, 2), (2, 2), (1, 0, 1, 1), ceil_mode=True),
    "max_pool, dilated": lambda emit, x: op.nn.max_pool2d(x, (2, 2), dilation=(2, 3)),
    "avg_pool": lambda emit, x: op.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1), count_include_pad=True),
    "adaptive_avg_pool": lambda emit, x: op.nn.adaptive_avg_pool2d(x, (2, 3)),
    "max_pool along one axis": lambda emit, x: op.reshape(
        emit(op.squeeze(emit(op.nn.max_pool2d(emit(op.expand_dims(
            emit(op.reshape(x, (2, 3, 30))), -2)), (1, 3), (1, 3))), [-2])), (2, 3, 5, 2)),
    "pad": lambda emit, x: op.nn.pad(x, [0, 0, 1, 0, 2, 3, 0, 4], pad_value=1.5),
    "concat of channels": lambda emit, x: op.concat([x, emit(op.negative(x))], 1),
    "slice of channels": lambda emit, x: op.strided_slice(x, [1], [1], [3]),
    "every second, backwards": lambda emit, x: op.strided_slice(x, [-1, 2], [5, 0], [0, 5], [-2, 2]),
    "part of a split": lambda emit, x: emit(op.split(x, [1, 4], 2))[1],
    "tile": lambda emit, x: op.tile(x, (1, 2, 1, 3)),
    "tile of the last axes": lambda emit, x: op.tile(x, (2, 1)),
    "larger, nearest": lambda emit, x: op.image.resize2d(x, (10, 18), method="nearest_neighbor"),
    "smaller, linear": lambda emit, x: op.image.resize2d(
        x, (4, 3), method="linear", coordinate_transformation_mode="align_corners"),
    "roll": lambda emit, x: op.take(x, relax.const(np.array([4, 0, 1, 2, 3])), axis=2),
    "channels split, and their mean": lambda emit, x: op.mean(
        emit(op.reshape(emit(op.tile(x, (1, 2, 1, 1))), (2, 3, 2, 5, 6))), [1]),
    "axes split and merged again": lambda emit, x: op.reshape(
        emit(op.negative(emit(op.reshape(x, (2, 3, 5, 2, 3))))), (2, 3, 5, 6)),
    "concat with what is not permuted": lambda emit, x: op.concat([x, constant(2, 2, 5, 6)], 1),
    "concat of the last axis": lambda emit, x: op.concat([x, emit(op.negative(x))], -1),
}  # fmt: skip


# Of an image in NCHW: its axes in pieces, the order of these, the axes of which they are merged.
SHUFFLES = {
    "pixel shuffle": ((2, 12, 5, 6), (2, 3, 2, 2, 5, 6), (0, 1, 4, 2, 5, 3), (2, 3, 10, 12)),
    "pixel shuffle, pieces first": ((2, 12, 5, 6), (2, 2, 2, 3, 5, 6), (0, 3, 4, 1, 5, 2), (2, 3, 10, 12)),
    "pixels to channels": ((2, 7, 4, 6), (2, 7, 2, 2, 3, 2), (0, 1, 3, 5, 2, 4), (2, 28, 2, 3)),
    "pixels to channels, pieces first": ((2, 7, 4, 6), (2, 7, 2, 2, 3, 2), (0, 3, 5, 1, 2, 4), (2, 28, 2, 3)),
    "channel shuffle": ((2, 6, 5, 4), (2, 2, 3, 5, 4), (0, 2, 1, 3, 4), (2, 6, 5, 4)),
}


def check(build, run, operators, body, permutations, *shapes):
    before = build(body, *shapes)
    after = sink_transposes(before)
    assert operators(after).count("permute_dims") == permutations
    inputs = [RNG.normal(size=shape).astype("float32") for shape in shapes]
    for ours, plain in zip(run(after, *inputs), run(before, *inputs), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", IMAGE_TO_IMAGE)
def test_a_permutation_passes_and_meets_its_inverse(build, run, operators, name):
    def body(emit, x):
        return nhwc(emit, emit(IMAGE_TO_IMAGE[name](emit, nchw(emit, x))))

    check(build, run, operators, body, 0, SHAPE)


@pytest.mark.parametrize("name", SHUFFLES)
def test_an_image_put_together_of_pieces_moves_once(build, run, operators, name):
    (n, c, h, w), pieces, order, merged = SHUFFLES[name]

    def body(emit, x):
        moved = emit(op.permute_dims(emit(op.reshape(nchw(emit, x), pieces)), order))
        return nhwc(emit, emit(op.reshape(moved, merged)))

    check(build, run, operators, body, 1, (n, h, w, c))


@pytest.mark.parametrize("axes, left", [([2, 3], 0), ([-1, -2], 0), ([1], 0), ([3], 1), ([0, 2], 1)])
def test_a_reduction_that_drops_axes(build, run, operators, axes, left):
    """What remains is in the expected order already, or is permuted after the reduction."""
    check(build, run, operators, lambda emit, x: emit(op.sum(nchw(emit, x), axes)), left, SHAPE)


def test_an_output_that_is_an_image_keeps_one(build, run, operators):
    def body(emit, x):
        return emit(op.nn.relu(nchw(emit, nhwc(emit, emit(op.exp(nchw(emit, x)))))))

    check(build, run, operators, body, 1, SHAPE)


def test_every_reader_gets_what_it_expects(build, run, operators):
    """One is element-wise, one needs the permuted tensor, and one is the network's output."""

    def body(emit, x):
        image = nchw(emit, x)
        return nhwc(emit, emit(op.exp(image))), emit(op.reshape(image, (2, -1))), image

    check(build, run, operators, body, 1, SHAPE)


def test_an_operand_without_a_permutation_is_given_one(build, run, operators):
    def body(emit, x, y):
        return nhwc(emit, emit(op.add(nchw(emit, x), y)))

    check(build, run, operators, body, 1, SHAPE, (2, 3, 5, 6))
    check(build, run, operators, body, 1, SHAPE, (3, 5, 1))


def test_operands_in_different_orders(build, run, operators):
    def body(emit, x, y):
        return emit(op.add(nchw(emit, x), emit(op.permute_dims(y, [0, 2, 3, 1])))), x

    check(build, run, operators, body, 3, SHAPE, (2, 6, 3, 5))


def test_an_operand_of_higher_rank(build, run, operators):
    def body(emit, x, y):
        return emit(op.add(emit(op.permute_dims(x)), y))

    check(build, run, operators, body, 1, (3, 2), (4, 2, 3))


def test_extents_of_1_are_only_reshaped(build, run, operators):
    check(build, run, operators, lambda emit, x: nchw(emit, x), 0, (2, 1, 1, 7))


def test_a_permutation_of_extents_of_1_is_sunk_like_any_other(build, run, operators):
    """As in a gate, between two layers of one pixel."""

    def body(emit, x):
        return nhwc(emit, emit(op.nn.relu(emit(op.add(nchw(emit, x), constant(7, 1, 1))))))

    before = build(body, (1, 1, 1, 7))
    assert operators(sink_transposes(before)) == ["add", "relu"]
    check(build, run, operators, body, 0, (1, 1, 1, 7))


def test_what_cannot_be_moved_past_stays_right(build, run, operators):
    check(build, run, operators, lambda emit, x: emit(op.nn.softmax(nchw(emit, x), axis=1)), 1, SHAPE)
    check(
        build,
        run,
        operators,
        lambda emit, x: emit(op.concat([nchw(emit, x), constant(2, 1, 5, 6)], 1)),
        1,
        SHAPE,
    )
