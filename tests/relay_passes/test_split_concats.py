"""Concatenations are followed part by part, and compute the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.fold_thresholds import fold_thresholds
from relay_passes.ir.rewrite import bindings, is_call, shape_of
from relay_passes.mark_layers import mark_layers
from relay_passes.sink_transposes import sink_transposes
from relay_passes.split_concats import split_concats
from schedules.targets.generic import GENERIC

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (1, 16, 5, 6)  # words of the generic kernels have 8 bits


def norm(emit, x):
    channels = int(x.ty.shape[1])
    scale, shift = (relax.const(RNG.integers(-4, 5, (channels, 1, 1)).astype("float32")) for _ in range(2))
    return emit(op.add(emit(op.multiply(x, scale)), shift))


def binary(emit, x, out, kernel=3):
    bits = emit(op.where(emit(op.greater_equal(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))
    weights = RNG.choice(np.float32([-1, 1]), (out, int(x.ty.shape[1]), kernel, kernel))
    return emit(op.nn.conv2d(bits, relax.const(weights), padding=(kernel // 2,) * 2))


def joined(emit, *parts):
    return emit(op.concat(list(parts), 1))


def dense_and_improved(emit, x, growth=8):
    """As MeliusNet has it: a layer adds channels, and the next one improves these."""
    x = binary(emit, x, 16)
    for _ in range(2):
        x = joined(emit, x, binary(emit, norm(emit, x), growth))
        better = binary(emit, norm(emit, x), growth)
        kept, last = emit(op.strided_slice(x, [1], [0], [-growth])), op.strided_slice(x, [1], [-growth], [99])
        x = joined(emit, kept, emit(op.add(emit(last), better)))
    return binary(emit, norm(emit, x), 5, kernel=1)


def split(build, body, *shapes):
    """(as found binary, split)."""
    before = find_binary(sink_transposes(mark_layers(build(body, *shapes), {})), GENERIC)[0]
    return before, split_concats(before)


def check(run, before, after, *shapes):
    inputs = [RNG.integers(-3, 4, shape).astype("float32") for shape in shapes]
    for ours, plain in zip(run(after, *inputs), run(before, *inputs), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_a_dense_network_joins_nothing_but_words(build, run, operators):
    before, after = split(build, dense_and_improved, SHAPE)
    folded = fold_thresholds(after)
    check(run, before, folded, SHAPE)
    assert "strided_slice" not in operators(folded)
    kinds = {str(b.var.ty.dtype) for b in bindings(folded) if is_call(b.value, "relax.concat")}
    assert kinds == {"uint8"}


@given(widths=st.lists(st.sampled_from([8, 16, 3, 20]), min_size=1, max_size=3), data=st.data())
@settings(deadline=None, max_examples=12)
def test_slices_of_any_channels(build, run, widths, data):
    """With parts that fill words and parts that do not; what is sliced is negative, and is packed."""
    total = sum(widths)
    first = data.draw(st.integers(0, total - 1))
    last = data.draw(st.integers(first + 1, total))
    shapes = [(1, 8, 4, 3) for _ in widths]

    def body(emit, *images):
        parts = [binary(emit, image, width) for image, width in zip(images, widths, strict=True)]
        x = norm(emit, joined(emit, *parts))
        some = emit(op.negative(emit(op.strided_slice(x, [1], [first - total], [last]))))
        return binary(emit, some, 4), binary(emit, x, 3, kernel=1), some

    before, after = split(build, body, *shapes)
    check(run, before, after, *shapes)
    packs = [shape_of(b.var)[-1] for b in bindings(after) if is_call(b.value, "bibench.pack")]
    if first == 0 and last == total and all(width % 8 == 0 for width in widths):
        assert sorted(packs) == sorted([*[1] * len(widths), *2 * [width // 8 for width in widths]])


BODIES = {
    "pools": lambda emit, x, y: emit(op.nn.max_pool2d(norm(emit, joined(emit, x, y)), (2, 2), (2, 2))),
    "an average": lambda emit, x, y: emit(op.mean(joined(emit, x, y), [2, 3])),
    "an average of channels": lambda emit, x, y: emit(op.mean(joined(emit, x, y), [1])),
    "rows": lambda emit, x, y: emit(op.negative(emit(op.concat([x, x], 2)))),
    "equal parts": lambda emit, x, y: emit(op.maximum(joined(emit, x, y), norm(emit, joined(emit, y, x)))),
    "other parts": lambda emit, x, y: emit(
        op.maximum(joined(emit, x, y), joined(emit, emit(op.strided_slice(x, [1], [0], [8])), x,
                                              emit(op.strided_slice(y, [1], [8], [16]))))),
    "a tensor without parts": lambda emit, x, y: binary(
        emit, emit(op.add(joined(emit, x, y), binary(emit, joined(emit, y, x), 32))), 4),
    "what is read whole as well": lambda emit, x, y: (
        binary(emit, norm(emit, joined(emit, x, y)), 4), joined(emit, x, y)),
    "twice the same": lambda emit, x, y: binary(emit, norm(emit, joined(emit, x, x)), 4),
}  # fmt: skip


def of_layers(body):
    """The same of what layers give, which is channels last."""
    return lambda emit, *images: body(emit, *(binary(emit, image, 16) for image in images))


@pytest.mark.parametrize("name", BODIES)
def test_computes_the_same(build, run, name):
    check(run, *split(build, of_layers(BODIES[name]), SHAPE, SHAPE), SHAPE, SHAPE)


def test_pools_are_of_parts(build, operators):
    _, after = split(build, of_layers(BODIES["pools"]), SHAPE, SHAPE)
    assert operators(after).count("max_pool2d") == 2
    assert operators(after).count("concat") == 1
