import numpy as np
import pytest
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.grow_halos import grow_halos
from relay_passes.ir.operators import Int8Convolution, Pack, attributes_of, call
from relay_passes.ir.rewrite import bindings, is_call
from relay_passes.mark_layers import mark_layers
from relay_passes.sink_transposes import sink_transposes
from schedules.geometry import Convolution
from schedules.parts.bits import Packing
from schedules.parts.quantizer import Quantizer
from schedules.targets.generic import GENERIC

RNG = np.random.default_rng(0)
op = relax.op


def sign(emit, x):
    return emit(op.where(emit(op.greater_equal(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))


def conv(x, kernel, padding):
    return op.nn.conv2d(x, relax.const(RNG.choice(np.float32([-1, 1]), (5, 20, *kernel))), padding=padding)


SHAPE = (1, 4, 6, 3)
BYTES = Packing(3, 8, quantizer=Quantizer(0.5, 128))


def packed(emit, x):
    """Bytes of the image x."""
    return emit(call("bibench.pack", x, attributes=Pack(packing=BYTES)))


def int8(emit, words, bytes_after, padding):
    weights = relax.const(RNG.integers(-9, 9, (5, 1, 1, 3)).astype("int8"))
    layer = Int8Convolution(
        name="layer",
        op="conv2d",
        conv=Convolution(*SHAPE, 5, padding=padding),
        packing=BYTES,
        bytes_after=bytes_after,
    )
    return emit(call("bibench.int8_convolution", words, weights, attributes=layer))


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


@pytest.mark.parametrize(
    "bytes_after, rows",
    [(0, 0), (1, 1), (3, 1), (26, 1), (27, 1), (28, 2)],
)
def test_an_int8_convolution_reads_rows_after_its_image(build, bytes_after, rows):
    """A row of the padded image is (6 + 1 + 2) * 3 = 27 bytes; what is read behind it takes whole rows."""
    after = grow_halos(build(lambda emit, x: int8(emit, packed(emit, x), bytes_after, (1, 1, 1, 2)), SHAPE))
    pack, convolution = (b.value for b in bindings(after) if is_call(b.value))
    layer = attributes_of(convolution, Int8Convolution)
    assert attributes_of(pack, Pack).packing.halo == layer.packing.halo == (1, 1, 1 + rows, 2)
    assert layer.conv.padding == (1, 1, 1, 2)


def test_int8_rows_count_where_another_reader_has_more_padding(build):
    def body(emit, x):
        words = packed(emit, x)
        return int8(emit, words, 3, (0, 0, 0, 0)), int8(emit, words, 0, (2, 1, 2, 1))

    after = grow_halos(build(body, SHAPE))
    pack, *layers = (b.value for b in bindings(after) if is_call(b.value))
    halos = [attributes_of(pack, Pack).packing.halo]
    halos += [attributes_of(layer, Int8Convolution).packing.halo for layer in layers]
    assert halos == [(2, 1, 2, 1)] * 3
