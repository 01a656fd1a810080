"""The folded comparison and the float chain agree on every value that a sum can take."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.fold_thresholds import fold_thresholds
from relay_passes.ir.rewrite import bindings, constant_value, is_call, is_constant
from relay_passes.mark_layers import mark_layers
from relay_passes.sink_transposes import sink_transposes
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value
from schedules.targets.generic import GENERIC

DEPTH, CHANNELS = 10, 4
SUMS = np.arange(-DEPTH, DEPTH + 1, dtype="float32")[:, None]  # every sum, beside each channel
op = relax.op

NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-3, -7.0, 1e6, -1e30, 3e38]) | st.floats(-20, 20, width=32)
PER_CHANNEL = st.lists(NUMBERS, min_size=CHANNELS, max_size=CHANNELS).map(lambda v: np.array(v, "float32"))


def constant(values):
    return relax.const(values.reshape(-1, 1, 1))


# name -> (in Relax, on an image in NCHW; in numpy, channels last)
LINKS = {
    "multiply": (lambda x, c: op.multiply(x, constant(c)), lambda x, c: x * c),
    "multiply from the left": (lambda x, c: op.multiply(constant(c), x), lambda x, c: c * x),
    "add": (lambda x, c: op.add(x, constant(c)), lambda x, c: x + c),
    "subtract": (lambda x, c: op.subtract(x, constant(c)), lambda x, c: x - c),
    "subtract from": (lambda x, c: op.subtract(constant(c), x), lambda x, c: c - x),
    "divide": (lambda x, c: op.divide(x, constant(c)), lambda x, c: x / c),
    "maximum": (lambda x, c: op.maximum(x, constant(c)), np.maximum),
    "minimum": (lambda x, c: op.minimum(x, constant(c)), np.minimum),
    "hardtanh": (lambda x, c: op.clip(x, -1, 1), lambda x, c: np.clip(x, np.float32(-1), np.float32(1))),
    "relu": (lambda x, c: op.nn.relu(x), lambda x, c: np.maximum(x, np.float32(0))),
    "negative": (lambda x, c: op.negative(x), lambda x, c: -x),
    "tanh": (lambda x, c: op.tanh(x), lambda x, c: np.tanh(x)),
    "mask": (lambda x, c: op.where(constant(c > 0), x, constant(c)), lambda x, c: np.where(c > 0, x, c)),
    "mask of the others": (
        lambda x, c: op.where(constant(c > 0), constant(c), x),
        lambda x, c: np.where(c > 0, c, x),
    ),
}
COMPARISONS = {
    "greater_equal": np.greater_equal,
    "greater": np.greater,
    "less_equal": np.less_equal,
    "less": np.less,
}
CHAIN = st.lists(st.tuples(st.sampled_from(sorted(LINKS)), PER_CHANNEL), max_size=5)


def network(build, links, comparison, threshold, pool_after=None, swapped=False, low=-1.0):
    """sign -> 1x1 convolution -> links -> comparison -> 1x1 convolution, folded where that can be."""
    weights = np.ones((CHANNELS, DEPTH, 1, 1), "float32")

    def body(emit, x):
        signs = emit(op.where(emit(op.greater(x, relax.const(0.0))), relax.const(1.0), relax.const(low)))
        x = emit(op.nn.conv2d(signs, relax.const(weights)))
        for i, (name, values) in enumerate(links):
            if i == pool_after:
                x = emit(op.nn.max_pool2d(x, (2, 2), (2, 2)))
            x = emit(LINKS[name][0](x, values))
        sides = (constant(threshold), x) if swapped else (x, constant(threshold))
        bits = emit(op.where(emit(getattr(op, comparison)(*sides)), relax.const(1.0), relax.const(-1.0)))
        return emit(op.nn.conv2d(bits, relax.const(np.ones((2, CHANNELS, 1, 1), "float32"))))

    return find_binary(sink_transposes(mark_layers(build(body, (1, DEPTH, 4, 4)), {})), GENERIC)[0]


def folded_truth(mod, sums_of=SUMS):
    """What is packed second, as a function of these sums; None where it is not a comparison of integers."""
    made = {b.var: b.value for b in bindings(mod)}
    _, pack = (value for value in made.values() if is_call(value, "bibench.pack"))
    value, turned = made[pack.args[0]], False
    if is_call(value, "relax.logical_xor"):
        value, turned = made[value.args[0]], constant_value(value.args[1])
    sums = made.get(value.args[0])
    if not is_call(sums, "bibench.binary_convolution"):
        return None
    assert is_call(value, "relax.greater_equal")
    return (constant_value(value.args[1]) <= sums_of.astype(int)) ^ turned


@given(
    links=CHAIN, comparison=st.sampled_from(sorted(COMPARISONS)), threshold=PER_CHANNEL, swapped=st.booleans()
)
@settings(deadline=None, max_examples=250)
def test_the_bit_of_every_sum(build, links, comparison, threshold, swapped):
    folded = folded_truth(fold_thresholds(network(build, links, comparison, threshold, swapped=swapped)))
    with np.errstate(all="ignore"):
        x, numbers = np.broadcast_to(SUMS, (len(SUMS), CHANNELS)), True
        for name, values in links:
            numbers &= name != "divide" or bool(values.all())
            x = LINKS[name][1](x, values)
            numbers &= not np.isnan(x).any()
        sides = (threshold, x) if swapped else (x, threshold)
        expected = COMPARISONS[comparison](*sides)
    if folded is None:
        # Only a chain that overflows may stay; the pass looks a little further than the sums here reach.
        assert not numbers or any(np.abs(values).max() > 1e5 for _, values in links)
    else:
        np.testing.assert_array_equal(folded, expected)


def test_infinite_constants_are_not_folded(build):
    """sum * inf >= -inf is true for every sum but 0, whose product is NaN."""
    infinite = np.full(CHANNELS, np.inf, "float32")
    found = fold_thresholds(network(build, [("multiply", infinite)], "greater_equal", -infinite))
    assert folded_truth(found) is None


@pytest.mark.parametrize("comparison", sorted(COMPARISONS))
def test_sums_over_0_and_1_reach_twice_as_far(build, comparison):
    """They are kept doubled, so that half of each is what is compared, up to the last."""
    threshold = np.float32([9, -9, 9.5, -9.5])
    folded = folded_truth(fold_thresholds(network(build, [], comparison, threshold, low=0.0)), 2 * SUMS)
    np.testing.assert_array_equal(folded, COMPARISONS[comparison](SUMS, threshold))


def test_overflow_is_not_folded(build):
    """(sum * 3e38) * 0 is 0 for the sum 0 and NaN for others: the same at both ends, another between."""
    links = [("multiply", np.full(CHANNELS, 3e38, "float32")), ("multiply", np.zeros(CHANNELS, "float32"))]
    assert (
        folded_truth(fold_thresholds(network(build, links, "greater_equal", np.zeros(CHANNELS, "float32"))))
        is None
    )


@given(links=CHAIN, pool_after=st.integers(0, 5), comparison=st.sampled_from(sorted(COMPARISONS)),
       threshold=PER_CHANNEL, seed=st.integers(0, 99))  # fmt: skip
@settings(deadline=None, max_examples=12)
def test_max_pool_between(build, run, operators, links, pool_after, comparison, threshold, seed):
    """What comes before it and after it rises in some channels and falls in others."""
    assume(pool_after < len(links))
    before = network(build, links, comparison, threshold, pool_after=pool_after)
    after = fold_thresholds(before)
    if folded_truth(after) is None:
        assert any(np.abs(values).max() > 1e5 or name == "divide" for name, values in links)
    else:
        assert operators(after).count("max_pool2d") == 0 and operators(after).count("bibench.pool") == 1
    x = np.random.default_rng(seed).normal(size=(1, DEPTH, 4, 4)).astype("float32")
    np.testing.assert_array_equal(run(after, x)[0], run(before, x)[0])


def test_a_pool_with_a_border(build, run):
    """What it pads with is no larger than anything, where all have to hold too."""
    falls = np.array([True, False, True, False])

    def between(emit, x):
        x = emit(op.multiply(x, constant(np.where(falls, -1, 1).astype("float32"))))
        x = emit(op.nn.max_pool2d(x, (3, 3), (2, 2), padding=(1, 1), ceil_mode=True))
        return emit(op.multiply(x, constant(np.float32([1, 1, -1, -1]))))

    before = plain_chain(build, between)
    after = fold_thresholds(before)
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=(1, DEPTH, 4, 4)).astype("float32")
        np.testing.assert_array_equal(run(after, x)[0], run(before, x)[0])


def plain_chain(build, make):
    """As `network`, with `make(emit, x)` between the convolution and the sign."""
    weights = np.ones((CHANNELS, DEPTH, 1, 1), "float32")

    def body(emit, x):
        signs = emit(op.where(emit(op.greater(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))
        x = make(emit, emit(op.nn.conv2d(signs, relax.const(weights))))
        bits = emit(
            op.where(emit(op.greater_equal(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0))
        )
        return emit(op.nn.conv2d(bits, relax.const(np.ones((2, CHANNELS, 1, 1), "float32"))))

    return find_binary(sink_transposes(mark_layers(build(body, (1, DEPTH, 4, 4)), {})), GENERIC)[0]


SLOPES = st.lists(
    st.sampled_from([0.0, 1.0, 0.25, 1e-30, 30.0]) | st.floats(0, 2, width=32),
    min_size=CHANNELS,
    max_size=CHANNELS,
).map(lambda v: np.array(v, "float32"))


def prelu_between(emit, x, slopes, shifts, greater="greater"):
    """RPReLU, or PReLU with a slope for each side, between a scale and the sign."""
    scale, before, behind = (constant(values) for values in shifts)
    x = emit(op.subtract(emit(op.multiply(x, scale)), before))
    sides = [x if s is None else emit(op.multiply(x, constant(s))) for s in slopes]
    x = emit(op.where(emit(getattr(op, greater)(x, relax.const(0.0))), *sides))
    return emit(op.add(x, behind))


@given(
    above=SLOPES | st.none(),
    below=SLOPES,
    shifts=st.tuples(PER_CHANNEL, PER_CHANNEL, PER_CHANNEL),
    greater=st.sampled_from(["greater", "greater_equal"]),
)
@settings(deadline=None, max_examples=60)
def test_the_bit_of_every_sum_behind_a_prelu(build, above, below, shifts, greater):
    """As in `test_the_bit_of_every_sum`: the twin is the float network itself, in numpy."""
    made = plain_chain(build, lambda emit, x: prelu_between(emit, x, (above, below), shifts, greater))
    folded = folded_truth(fold_thresholds(made))
    scale, before, behind = shifts
    with np.errstate(all="ignore"):
        x = np.broadcast_to(SUMS, (len(SUMS), CHANNELS)) * scale - before
        expected = np.where(x > 0, x if above is None else x * above, x * below) + behind >= 0
        numbers = not np.isnan(x).any()
    if folded is None:
        assert not numbers or any(np.abs(values).max() > 1e5 for values in shifts)
    else:
        np.testing.assert_array_equal(folded, expected)


DIPPING = {"gelu": ("relax.nn.gelu", op.nn.gelu), "gelu_tanh": ("relax.nn.gelu_tanh", op.nn.gelu_tanh)}


@given(
    name=st.sampled_from(sorted(DIPPING)),
    scale=st.lists(st.sampled_from([0.1, -0.3, 2.0, 0.0]), min_size=CHANNELS, max_size=CHANNELS),
    threshold=st.lists(
        st.sampled_from([-0.1, -0.16, -0.2, 0.0, 0.7, 30.0]), min_size=CHANNELS, max_size=CHANNELS
    ),
    comparison=st.sampled_from(sorted(COMPARISONS)),
)
@settings(deadline=None, max_examples=60)
def test_the_bit_of_every_sum_behind_a_gelu(build, name, scale, threshold, comparison):
    """Which may change twice: the sum is compared with one integer, or with two."""
    scale, threshold = np.float32(scale), np.float32(threshold)

    def body(emit, x):
        signs = emit(op.where(emit(op.greater(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))
        x = emit(op.nn.conv2d(signs, relax.const(np.ones((CHANNELS, DEPTH, 1, 1), "float32"))))
        x = emit(DIPPING[name][1](emit(op.multiply(x, constant(scale)))))
        bits = emit(getattr(op, comparison)(x, constant(threshold)))
        bits = emit(op.where(bits, relax.const(1.0), relax.const(-1.0)))
        return emit(op.nn.conv2d(bits, relax.const(np.ones((2, CHANNELS, 1, 1), "float32"))))

    network = find_binary(sink_transposes(mark_layers(build(body, (1, DEPTH, 4, 4)), {})), GENERIC)[0]
    made = {b.var: b.value for b in bindings(fold_thresholds(network))}
    sums = SUMS[::2].astype(int)  # of as many products as there are, none is odd

    def value_of(arg):
        if is_constant(arg):
            return constant_value(arg)
        call = made[arg]
        if is_call(call, "bibench.binary_convolution"):
            return sums
        meant = {"logical_or": np.logical_or, "logical_not": np.logical_not, **COMPARISONS}
        return meant[call.op.name.removeprefix("relax.")](*map(value_of, call.args))

    _, pack = (value for value in made.values() if is_call(value, "bibench.pack"))
    x = sums.astype("float32") * scale
    output = Output(Value("step"), x.shape, "float32")
    [x] = Epilogue((), (Step(DIPPING[name][0], (SUM,)),), (output,)).evaluate(x, [])
    np.testing.assert_array_equal(value_of(pack.args[0]), COMPARISONS[comparison](x, threshold))


NOT_MONOTONE = {
    "a PReLU that falls below 0 in a channel": lambda emit, x: prelu_between(
        emit, x, (None, np.float32([0.25, -0.25, 0, 1])), [np.ones(CHANNELS, "float32")] * 3),
    "a PReLU that falls above 0": lambda emit, x: prelu_between(
        emit, x, (-np.ones(CHANNELS, "float32"), np.ones(CHANNELS, "float32")),
        [np.ones(CHANNELS, "float32")] * 3),
    "a PReLU that bends elsewhere": lambda emit, x: emit(op.where(emit(op.greater(x, relax.const(1.0))), x,
        emit(op.multiply(x, relax.const(0.5))))),
    "leaky relu": lambda emit, x: emit(op.nn.leakyrelu(x, -0.5)),
    "abs": lambda emit, x: emit(op.abs(x)),
    "square": lambda emit, x: emit(op.multiply(x, x)),
    "a constant of every pixel": lambda emit, x: emit(op.add(x, relax.const(np.float32([[1, 2, 3, 4]] * 4)))),
    "int8": lambda emit, x: emit(op.astype(emit(op.astype(
        emit(op.multiply(x, relax.const(100.0))), "int8")), "float32")),
    "an average": lambda emit, x: emit(op.nn.avg_pool2d(x, (2, 2))),
    "two poolings": lambda emit, x: emit(op.nn.max_pool2d(emit(op.nn.max_pool2d(x, (2, 2))), (2, 2))),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_MONOTONE)
def test_what_may_turn_or_mix_sums_is_not_folded(build, name):
    assert folded_truth(fold_thresholds(plain_chain(build, NOT_MONOTONE[name]))) is None


def test_a_chain_that_grows_by_broadcasting_is_not_folded(build, run):
    """One output channel plus a constant along the channels."""
    first = np.ones((1, DEPTH, 1, 1), "float32")

    def body(emit, x):
        signs = emit(op.where(emit(op.greater(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))
        x = emit(op.add(emit(op.nn.conv2d(signs, relax.const(first))), constant(np.float32([-3, 0, 3, 5]))))
        bits = emit(
            op.where(emit(op.greater_equal(x, relax.const(0.0))), relax.const(1.0), relax.const(-1.0))
        )
        return emit(op.nn.conv2d(bits, relax.const(np.ones((2, CHANNELS, 1, 1), "float32"))))

    before = build(body, (1, DEPTH, 4, 4))
    after = fold_thresholds(find_binary(sink_transposes(mark_layers(before, {})), GENERIC)[0])
    x = np.random.default_rng(0).normal(size=(1, DEPTH, 4, 4)).astype("float32")
    np.testing.assert_array_equal(run(after, x)[0], run(before, x)[0])
