"""Moves of pixels before a packing become moves of words, and compute the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.ir.operators import Pack, attributes_of, call
from relay_passes.ir.rewrite import bindings, dtype_of, is_call, shape_of
from relay_passes.mark_layers import mark_layers
from relay_passes.move_words import move_words
from relay_passes.sink_transposes import sink_transposes
from schedules.parts.bits import Packing
from schedules.targets.generic import GENERIC

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (2, 16, 6, 7)  # words of the generic kernels have 8 bits
MOVED = {"pad", "take", "strided_slice", "flip", "concat", "resize2d", "repeat"}


def sign(emit, x):
    return emit(op.where(emit(op.greater_equal(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))


def norm(emit, x):
    scale, shift = (
        relax.const(RNG.integers(-4, 5, (int(x.ty.shape[1]), 1, 1)).astype("float32")) for _ in "ab"
    )
    return emit(op.add(emit(op.multiply(x, scale)), shift))


def layer(emit, bits, padding=0):
    weights = RNG.choice(np.float32([-1, 1]), (8, int(bits.ty.shape[1]), 2, 3))
    return emit(op.nn.conv2d(bits, relax.const(weights), padding=(padding, padding)))


def padded(value, sides=(1, 2, 0, 1)):
    return lambda emit, x: emit(op.nn.pad(x, [0, 0, 0, 0, *sides], pad_value=value))


def reflected(emit, x):
    rows, columns = (relax.const(np.array(at, "int64")) for at in ([1, *range(6), 4], [1, *range(7), 5]))
    return emit(op.take(emit(op.take(x, rows, axis=2)), columns, axis=3))


def circular(emit, x):
    first, last = (emit(op.strided_slice(x, [3], [at], [end])) for at, end in ((0, 1), (-1, 99)))
    return emit(op.concat([last, x, first], 3))


def cut(emit, x):
    return emit(op.strided_slice(x, [2, 3], [1, 0], [99, -1]))


def turned(emit, x):
    return emit(op.flip(x, 2))


def doubled(emit, x):
    return emit(op.concat([x, turned(emit, x)], 2))


def enlarged(emit, x, *factors, mode="half_pixel", rounding="round", method="nearest_neighbor"):
    sizes = tuple(round(size * factor) for size, factor in zip(shape_of(x)[2:], factors, strict=True))
    how = {"coordinate_transformation_mode": mode, "rounding_method": rounding}
    return emit(op.image.resize2d(x, sizes, method=method, **how))


def twice_as_large(emit, x):
    return enlarged(emit, x, 2, 3)


def larger_and_rounded_down(emit, x):
    return enlarged(emit, x, 4, 1, mode="asymmetric", rounding="floor")


def columns_dropped(emit, x):
    return emit(op.strided_slice(x, [2, 3], [0, 0], [2, 3]))


def moved(build, body, *shapes):
    """(as found binary, with words moved), of a network whose first layer is one of numbers."""

    def network(emit, x):
        channels = int(x.ty.shape[1])
        weights = RNG.integers(-3, 4, (channels, channels, 1, 1)).astype("float32")
        return body(emit, emit(op.nn.conv2d(x, relax.const(weights))))

    before = find_binary(sink_transposes(mark_layers(build(network, *shapes), {})), GENERIC)[0]
    return before, move_words(before)


def moves_of(mod):
    """(of numbers and truths, of words): the names of what moves and is read."""
    calls = [(b.value.op.name.split(".")[-1], b.var) for b in bindings(mod) if is_call(b.value)]
    read = {v for b in bindings(mod) for v in relax.analysis.free_vars(b.value)}
    live = [(name, dtype_of(var)) for name, var in calls if name in MOVED and var in read]
    return (
        *([name for name, dtype in live if dtype.startswith("uint") == words] for words in (False, True)),
    )


def check(run, before, after, *shapes):
    inputs = [RNG.integers(-3, 4, shape).astype("float32") for shape in shapes]
    for ours, plain in zip(run(after, *inputs), run(before, *inputs), strict=True):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(
    "move",
    [
        padded(1),
        padded(-1),
        reflected,
        circular,
        cut,
        turned,
        doubled,
        twice_as_large,
        larger_and_rounded_down,
    ],  # fmt: skip
    ids=lambda m: m.__name__,
)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("after_the_sign", [False, True])
def test_words_are_moved_and_no_floats(build, run, move, padding, after_the_sign):
    """Those of floats are left to nobody, and vanish."""

    def body(emit, x):
        bits = move(emit, sign(emit, x)) if after_the_sign else sign(emit, move(emit, x))
        return layer(emit, bits, padding)

    before, after = moved(build, body, SHAPE)
    floats, words = moves_of(relax.transform.DeadCodeElimination()(after))
    assert words and not floats
    check(run, before, after, SHAPE)


def test_what_is_packed_once_is_sliced_from_there(build, run):
    before, after = moved(build, lambda emit, x: layer(emit, sign(emit, circular(emit, x))), SHAPE)
    packs = [b.value for b in bindings(after) if is_call(b.value, "bibench.pack")]
    assert len(packs) == 1
    check(run, before, after, SHAPE)


def sign_of_few(emit, x):
    return sign(emit, columns_dropped(emit, x))


def sign_of_half_as_large_again(emit, x):
    return sign(emit, enlarged(emit, x, 1.5, 2))


def sign_of_rounded_up(emit, x):
    return sign(emit, enlarged(emit, x, 2, 2, rounding="ceil"))


def sign_of_between(emit, x):
    return sign(emit, enlarged(emit, x, 2, 2, method="linear"))


def sign_after_a_norm_of_zeros(emit, x):
    return sign(emit, norm(emit, padded(0)(emit, x)))


def sign_of_half_words(emit, x):
    return sign(emit, padded(0)(emit, emit(op.strided_slice(x, [1], [0], [12]))))


def sign_of_other_channels(emit, x):
    return sign(emit, emit(op.take(x, relax.const(np.arange(16)[::-1].copy()), axis=1)))


def sign_of_a_pixel_each(emit, x):
    shift = relax.const(RNG.integers(-3, 4, (8, 10)).astype("float32"))
    return sign(emit, emit(op.add(emit(op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 2])), shift)))


def sign_of_a_sum(emit, x):
    return sign(emit, emit(op.add(turned(emit, x), cut(emit, padded(0, (1, 0, 0, 1))(emit, x)))))


@pytest.mark.parametrize(
    "bits",
    [
        sign_of_few, sign_after_a_norm_of_zeros, sign_of_half_words, sign_of_other_channels,
        sign_of_a_pixel_each, sign_of_a_sum, sign_of_half_as_large_again, sign_of_rounded_up, sign_of_between,
    ],
    ids=lambda b: b.__name__,
)  # fmt: skip
def test_what_words_cannot_say_stays(build, run, bits):
    """A slice that leaves few pixels; bits of a padding that differ by channel, or end within a word; moved
    channels; numbers that depend on the pixel; a sum of what was moved in two ways; pixels that are not each
    one of before as many times."""
    before, after = moved(build, lambda emit, x: layer(emit, bits(emit, x)), SHAPE)
    assert not moves_of(relax.transform.DeadCodeElimination()(after))[1]
    check(run, before, after, SHAPE)


@st.composite
def moves(draw):
    kinds = [padded(draw(st.sampled_from([-2.0, 0.0, 0.5]))), circular, cut, turned, doubled]
    return draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))


@given(moves=moves(), channels=st.sampled_from([8, 12, 24]), between=st.lists(st.booleans(), max_size=3))
@settings(deadline=None, max_examples=25)
def test_any_moves_in_a_row_compute_the_same(build, run, moves, channels, between):
    """With batch norm between some of them."""

    def body(emit, x):
        for move, normed in zip(moves, [*between, False, False, False], strict=False):
            x = move(emit, norm(emit, x) if normed else x)
        return layer(emit, sign(emit, x))

    shape = (1, channels, 5, 6)
    before, after = moved(build, body, shape)
    assert shape_of(after["main"].body.body) == shape_of(before["main"].body.body)
    check(run, before, after, shape)


def a_number(channels):
    return relax.const(0.5)


def numbers(channels):
    return relax.const(RNG.integers(-2, 3, channels).astype("float32"))


@pytest.mark.parametrize("shape, order, between, as_planes, of_words", [
    ((2, 9, 3, 8), [0, 2, 1, 3], None, False, True),  # heads and tokens
    ((2, 9, 3, 8), [0, 2, 1, 3], numbers, False, True),
    ((9, 3, 8), [1, 0, 2], a_number, False, True),
    ((2, 20, 3, 5), [0, 2, 3, 1], None, True, False),
    ((2, 20, 3, 5), [0, 2, 3, 1], a_number, True, False),
    ((2, 20, 5), [0, 2, 1], a_number, True, False),
    ((2, 20, 3, 5), [0, 2, 3, 1], numbers, False, False),
    ((2, 20, 3, 5), [0, 3, 2, 1], None, False, False),
])  # fmt: skip
def test_axes_that_are_permuted(build, run, shape, order, between, as_planes, of_words):
    channels = shape[order[-1]]

    def body(emit, x):
        moved = emit(op.permute_dims(x, order))
        moved = emit(op.add(moved, between(channels))) if between else moved
        bits = emit(op.greater_equal(moved, relax.const(0.0)))
        return emit(call("bibench.pack", bits, attributes=Pack(packing=Packing(channels, 8))))

    before = build(body, shape)
    after = move_words(before)
    made = [b.value for b in bindings(after) if is_call(b.value)]
    [packed] = (value for value in made if is_call(value, "bibench.pack"))
    assert attributes_of(packed, Pack).planar == as_planes
    permuted = [dtype_of(v) for v in made if is_call(v, "relax.permute_dims")]
    assert permuted == ([] if as_planes else ["uint8" if of_words else "float32"])
    check(run, before, after, shape)
