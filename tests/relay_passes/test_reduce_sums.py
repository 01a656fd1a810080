"""The extremes of a layer's sums take the place of those of what is computed of them, and give the same."""

import numpy as np
import pytest
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.grow_halos import grow_halos
from relay_passes.ir.rewrite import bindings, is_call
from relay_passes.lower_kernels import lower_kernels
from relay_passes.mark_layers import mark_layers
from relay_passes.reduce_sums import reduce_sums
from relay_passes.sink_transposes import sink_transposes
from schedules.targets.generic import GENERIC

DEPTH, CHANNELS, HEIGHT, WIDTH = 32, 20, 3, 7
RNG = np.random.default_rng(0)
op = relax.op

MIXED = np.resize(np.float32([1, -2, 0, 0.5, -0.0, 3]), CHANNELS)
OFFSETS = RNG.normal(size=CHANNELS).astype("float32")


def per_channel(values):
    return relax.const(np.asarray(values, "float32").reshape(-1, 1, 1))


def scaled(values):
    return lambda emit, x: emit(op.add(emit(op.multiply(x, per_channel(values))), per_channel(OFFSETS)))


def prelu(emit, x):
    positive = emit(op.greater(x, relax.const(0.0)))
    return emit(op.where(positive, x, emit(op.multiply(x, relax.const(0.25)))))


# What is computed of the sums: in NCHW, and how many extremes of the sums it takes.
FUNCTIONS = {
    "rises": (scaled(np.abs(MIXED)), 1),
    "falls": (scaled(-1 - np.abs(MIXED)), 1),
    "either": (scaled(MIXED), 2),
    "hardtanh": (lambda emit, x: emit(op.clip(scaled(MIXED)(emit, x), -5, 5)), 2),
    "prelu": (lambda emit, x: prelu(emit, scaled(MIXED)(emit, x)), 2),
}
REDUCTIONS = {
    "image": lambda emit, x: op.max(x, [2, 3]),
    "image, kept": lambda emit, x: op.max(x, [2, 3], keepdims=True),
    "row": lambda emit, x: op.max(x, [3]),
    "least": lambda emit, x: op.min(x, [-1, -2]),
    "pool": lambda emit, x: op.nn.max_pool2d(x, (HEIGHT, WIDTH)),
    "pixels in a row": lambda emit, x: op.max(emit(op.reshape(x, (-1, CHANNELS, HEIGHT * WIDTH))), [2]),
}


def network(build, function, reduction, padding=0, also=None):
    """sign -> convolution, 1x1 or with a border -> function -> reduction, before the pass."""
    kernel = 1 + 2 * padding
    weights = np.where(RNG.random((CHANNELS, DEPTH, kernel, kernel)) < 0.5, 1, -1).astype("float32")

    def body(emit, x):
        signs = emit(op.where(emit(op.greater(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))
        x = function(emit, emit(op.nn.conv2d(signs, relax.const(weights), padding=(padding, padding))))
        reduced = emit(reduction(emit, x))
        return (reduced, emit(also(x))) if also else reduced

    built = build(body, (2, DEPTH, HEIGHT, WIDTH))
    return find_binary(sink_transposes(mark_layers(built, {})), GENERIC)[0]


def kept(mod) -> list[str]:
    """The extremes that are taken of sums."""
    made = {b.var: b.value for b in bindings(mod)}
    return [
        value.op.name.removeprefix("relax.")
        for value in made.values()
        if is_call(value, "relax.max", "relax.min")
        and is_call(made.get(value.args[0]), "bibench.binary_convolution")
    ]


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_of_the_sums_instead(build, run, operators, function, reduction, padding):
    compute, extremes = FUNCTIONS[function]
    before = network(build, compute, REDUCTIONS[reduction], padding)
    after = reduce_sums(before)
    assert len(kept(after)) == extremes
    x = RNG.normal(size=(2, DEPTH, HEIGHT, WIDTH)).astype("float32")
    for ours, plain in zip(run(after, x), run(before, x), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_they_are_all_that_the_kernel_writes(build, run, operators):
    """One group: the sums are no tensor any more."""
    mod = reduce_sums(network(build, scaled(MIXED), REDUCTIONS["image"]))
    lowered = lower_kernels(grow_halos(mod), GENERIC).module
    assert "reduce" not in operators(lowered) and "max" not in operators(lowered)
    (kernel,) = (f for name, f in lowered.functions_items() if "convolution" in name.name_hint)
    written = [p for p in kernel.params if p.name.startswith("output")]
    assert [tuple(map(int, p.shape)) for p in written] == [(2, 1, 1, CHANNELS)] * 2


@pytest.mark.parametrize(
    "also, function",
    [
        (lambda x: op.exp(x), scaled(MIXED)),
        (None, lambda emit, x: emit(op.nn.gelu(x))),
        (None, lambda emit, x: emit(op.abs(x))),
        (None, lambda emit, x: scaled(0 * MIXED)(emit, scaled(0 * MIXED + 3e38)(emit, x))),
    ],
    ids=["read besides", "falls and rises", "no link", "overflows"],
)
def test_left_as_it_is(build, also, function):
    before = network(build, function, REDUCTIONS["image"], also=also)
    assert kept(reduce_sums(before)) == []


def test_an_extreme_over_channels_is_another(build):
    assert kept(reduce_sums(network(build, scaled(MIXED), lambda emit, x: op.max(x, [1])))) == []
    assert kept(reduce_sums(network(build, scaled(MIXED), lambda emit, x: op.max(x, [0, 2, 3])))) == []
