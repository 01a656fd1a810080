import numpy as np
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.grow_halos import grow_halos
from relay_passes.mark_layers import mark_layers
from relay_passes.operators import Pack, attributes_of
from relay_passes.rewrite import bindings, is_call
from relay_passes.sink_transposes import sink_transposes
from schedules.targets.generic import GENERIC

RNG = np.random.default_rng(0)
op = relax.op


def sign(emit, x):
    return emit(op.where(emit(op.greater_equal(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))


def conv(x, kernel, padding):
    return op.nn.conv2d(x, relax.const(RNG.choice(np.float32([-1, 1]), (5, 20, *kernel))), padding=padding)


def grown(build, body, *shapes):
    """(before, after, the halos of what is packed)."""
    before = build(body, *shapes)
    after = grow_halos(find_binary(sink_transposes(mark_layers(before, {})), GENERIC)[0])
    packs = [b.value for b in bindings(after) if is_call(b.value, "bibench.pack")]
    return before, after, [list(attributes_of(pack, Pack).packing.halo) for pack in packs]


def check(run, before, after, *shapes):
    inputs = [RNG.normal(size=shape).astype("float32") for shape in shapes]
    for ours, plain in zip(run(after, *inputs), run(before, *inputs), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_readers_with_different_padding_share_the_widest(build, run):
    shape = (2, 5, 6, 20)

    def body(emit, x):
        bits = emit(op.permute_dims(sign(emit, x), [0, 3, 1, 2]))  # which meets those of the convolutions
        return (
            emit(conv(bits, (3, 3), (0, 2, 1, 0))),
            emit(conv(bits, (2, 3), (1, 0, 0, 1))),
            emit(conv(bits, (1, 1), (0, 0, 0, 0))),
        )

    before, after, halos = grown(build, body, shape)
    assert halos == [[1, 2, 1, 1]]
    check(run, before, after, shape)


def test_a_product_reads_no_halo(build, run):
    """The same signs are padded for a convolution and multiplied with others."""
    shapes = (2, 5, 6, 20), (2, 5, 20, 7)

    def body(emit, x, y):
        bits = sign(emit, x)
        image = emit(op.permute_dims(bits, [0, 3, 1, 2]))
        return emit(conv(image, (3, 3), (1, 1, 1, 1))), emit(op.matmul(bits, sign(emit, y)))

    before, after, halos = grown(build, body, *shapes)
    assert sorted(halos) == [[0] * 4, [0] * 4, [1] * 4]
    check(run, before, after, *shapes)
