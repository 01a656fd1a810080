import numpy as np
import pytest
from tvm import relax

from relay_passes.ir.operators import Contraction, attributes_of
from relay_passes.ir.rewrite import bindings, is_call
from relay_passes.mark_layers import mark_layers

RNG = np.random.default_rng(0)
op = relax.op


def conv2d(x):
    weights = RNG.normal(size=(4, 3, 3, 3)).astype("float32")
    return op.nn.conv2d(x, relax.const(weights), padding=(0, 1, 2, 3))


def conv1d(x):
    return op.nn.conv1d(x, relax.const(RNG.normal(size=(4, 3, 3)).astype("float32")), padding=(1, 2))


FOLDED = {
    "2-D": (conv2d, (1, 3, 5, 6), [[0, 0, 0, 0, 1, 2, 3, 4]], [1, 4, 4, 7]),
    "1-D": (conv1d, (1, 3, 9), [[0, 0, 0, 0, 3, 4]], [0, 4, 0, 6]),
    "two": (conv2d, (1, 3, 5, 6), [[0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]], [1, 1, 3, 3]),
}


@pytest.mark.parametrize("name", FOLDED)
def test_zeros_around_the_image_become_the_padding(build, run, operators, name):
    conv, shape, pads, padding = FOLDED[name]

    def body(emit, x):
        for widths in pads:
            x = emit(op.nn.pad(x, widths))
        return emit(conv(x))

    before = build(body, shape)
    after = mark_layers(before, {})
    assert "pad" not in operators(after)
    [folded] = [b.value for b in bindings(after) if is_call(b.value, "bibench.convolution")]
    assert list(attributes_of(folded, Contraction).conv.padding) == padding
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-4, atol=1e-5)


KEPT = {
    "ones": lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_value=1.0),
    "reflected": lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_mode="reflect"),
    "a channel": lambda x: op.nn.pad(x, [0, 0, 0, 1, 0, 0, 0, 0]),
    "a crop": lambda x: op.nn.pad(x, [0, 0, 0, 0, -1, 0, 0, 0]),
}


@pytest.mark.parametrize("name", KEPT)
def test_another_pad_stays(build, operators, name):
    shape = (1, 2 if name == "a channel" else 3, 5, 6)
    mod = build(lambda emit, x: emit(conv2d(emit(KEPT[name](x)))), shape)
    assert "pad" in operators(mark_layers(mod, {}))
