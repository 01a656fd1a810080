"""Random expressions of one tensor: what is said of them holds at every float that is tried, breakpoints and
their neighbours, zeros of both signs, infinities and NaN among them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from relay_passes.ir.ordinals import to_floats, to_ordinals
from relay_passes.ir.step_functions import Steps, Values, step_function

CHANNELS = 3
ANYWHERE = (True, True, "common")
UNARY = {
    "sign": lambda a: np.subtract(a > 0, a < 0, dtype="float32"),  # 0 of NaN, as PyTorch has it
    "floor": np.floor, "ceil": np.ceil, "round": np.rint, "abs": np.abs,
    "negative": np.negative,
    "nn.relu": lambda a: np.maximum(a, np.float32(0)), "square": np.square,
}  # fmt: skip
BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
    "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip
COMPARISONS = {
    "greater": np.greater, "greater_equal": np.greater_equal, "less": np.less, "less_equal": np.less_equal,
    "equal": np.equal, "not_equal": np.not_equal,
}  # fmt: skip

numbers = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 0.1, -3.0, 1e-3, 1e30]).map(np.float32)
constants = numbers | st.lists(numbers, min_size=CHANNELS, max_size=CHANNELS).map(
    lambda values: np.array(values, np.float32).reshape(1, CHANNELS, 1, 1)
)
leaves = st.just("x") | constants


def grown(inner):
    compared = st.tuples(st.sampled_from([*COMPARISONS]), inner, inner | constants)
    return st.one_of(
        st.tuples(st.sampled_from([*UNARY]), inner),
        st.tuples(st.sampled_from([*BINARY]), inner, inner | constants),
        st.tuples(st.just("clip"), inner, st.sampled_from([(-1, 1), (0, 1), (0, 6), (-0.5, 1.5)])),
        st.tuples(st.just("cast"), compared),
        st.tuples(st.just("where"), compared, inner | constants, inner | constants),
        st.tuples(st.just("power"), st.just(np.float32(-1)), st.tuples(st.just("cast"), compared)),
    )


def few(inner):
    """Expressions that have few values if there is little in them."""
    compared = st.tuples(st.sampled_from([*COMPARISONS]), inner, constants)
    step = st.tuples(st.just("sign"), inner) | st.tuples(st.just("cast"), compared)
    step |= st.tuples(st.just("where"), compared, numbers, numbers)
    repaired = step.flatmap(
        lambda s: st.sampled_from(
            [
                s,
                ("add", s, ("subtract", np.float32(1), ("abs", s))),
                ("where", ("equal", s, np.float32(0)), np.float32(1), s),
                ("multiply", s, s),
            ]
        )
    )
    return st.one_of(repaired, st.tuples(st.sampled_from([*BINARY]), repaired, repaired))


expressions = st.recursive(leaves, grown, max_leaves=6)


class Emitted:
    """An expression in Relax; trees: what each of its tensors was made of."""

    def __init__(self, emit, tree, x):
        self.emit, self.x, self.trees = emit, x, [(x, "x")]
        self.root = self.of(tree)

    def of(self, tree):
        if isinstance(tree, str):
            return self.x
        if not isinstance(tree, tuple):
            return relax.const(tree)
        name, *parts = tree
        if name == "clip":
            call = relax.op.clip(self.of(parts[0]), *parts[1])
        elif name == "cast":
            call = relax.op.astype(self.of(parts[0]), "float32")
        else:
            maker = relax.op.nn.relu if name == "nn.relu" else getattr(relax.op, name)
            call = maker(*map(self.of, parts))
        var = self.emit(call)
        self.trees.append((var, tree))
        return var


def computed(tree, x):
    if isinstance(tree, str):
        return x
    if not isinstance(tree, tuple):
        return tree
    name, *parts = tree
    if name == "clip":
        low, high = map(np.float32, parts[1])
        return np.minimum(np.maximum(computed(parts[0], x), low), high)
    args = [computed(part, x) for part in parts]
    if name == "cast":
        return np.asarray(args[0]).astype(np.float32)
    if name == "where":
        return np.where(*args)
    if name == "power":
        return np.power(*np.broadcast_arrays(*args))
    return {**UNARY, **BINARY, **COMPARISONS}[name](*args)


def found(tree, domain=ANYWHERE):
    """(what is said of it, the tree of the tensor over which)."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, CHANNELS, 1, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            made = Emitted(builder.emit, tree, x)
            steps = step_function(builder, made.root, lambda _: domain)
            out = builder.emit_output(x)
        builder.emit_func_output(out)
    over = getattr(steps, "x", None)
    return steps, next((tree for var, tree in made.trees if over is not None and var.same_as(over)), "x")


def points(steps):
    rng = np.random.default_rng(0)
    ordinals = rng.integers(to_ordinals(np.float32(-np.inf)), to_ordinals(np.float32(np.inf)), 64)
    if isinstance(steps, Steps) and len(steps.intervals):
        ends = np.concatenate([np.ravel(end) for pair in steps.intervals for end in pair])
        ordinals = np.concatenate([ordinals, *(ends + i for i in (-2, -1, 0, 1, 2))])
    special = np.float32(
        [0, -0.0, 1e-45, -1e-45, 1, -1, 0.5, -0.5, 2, 0.1, 1e-3, 3, 1.5, np.inf, -np.inf, np.nan]
    )
    near = np.concatenate(
        [special, np.nextafter(special, np.float32(9)), np.nextafter(special, np.float32(-9))]
    )
    return np.concatenate([near, to_floats(ordinals), rng.normal(size=64).astype("float32")])


def spread(values, count):
    return np.broadcast_to(values, (1, CHANNELS, 1, count)).reshape(CHANNELS, count)


def higher(steps, x):
    """Where an expression has the higher value, as `steps` says; x: [CHANNELS, points]."""
    if x.dtype == bool:
        return x != steps.outside
    total = np.zeros(x.shape, bool)
    for first, last in steps.intervals:
        total |= (x >= to_floats(first)[:, None]) & (x <= to_floats(last)[:, None])
    return total != steps.outside


@settings(max_examples=300, deadline=None)
@given(few(expressions) | few(st.just("x")) | expressions)
def test_what_takes_two_values_takes_them_where_it_is_said(tree):
    steps, over = found(tree)
    x = points(steps)
    with np.errstate(all="ignore"):
        values, of = (spread(computed(part, x), x.size) for part in (tree, over))
    if steps is None:
        return
    if isinstance(steps, Values):
        counted = np.isfinite(spread(x, x.size)) & ~np.isnan(of)
        near = (
            np.abs(values[counted][:, None] - np.float32(steps.found)).min(1)
            <= 1e-6 * np.abs(steps.found).max()
        )
        assert len(steps.found) != 2 and (steps.moved or near.all())
        return
    expected = np.where(higher(steps, of), steps.high, steps.low)
    nan = np.isnan(values)  # the lower
    assert not (nan & np.isfinite(x)).any() or over != "x"
    nan |= np.isnan(of) & ~(np.isnan(of) & (values == steps.high)).any(1).all()
    nan &= (expected == steps.low) | (steps.moved is not None)
    expected = np.where(nan, values, expected)
    np.testing.assert_allclose(values, expected, rtol=0, atol=steps.moved or 0)


def test_the_floats_in_order():
    numbers = np.float32([-np.inf, -1, -1e-45, -0.0, 0.0, 1e-45, 1, np.inf])
    ordinals = to_ordinals(numbers)
    assert (np.diff(ordinals) > 0).all() and ordinals[4] == 0
    np.testing.assert_array_equal(to_floats(ordinals), numbers)
    assert (np.signbit(to_floats(ordinals)) == np.signbit(numbers)).all()


SIGN = ("sign", "x")
SOFT = ("clip", ("multiply", "x", np.float32(0.3)), (-1, 1))


@pytest.mark.parametrize(
    "tree",
    [
        ("add", ("subtract", SIGN, SOFT), SOFT),
        ("add", SOFT, ("subtract", SIGN, SOFT)),
        ("subtract", SIGN, ("subtract", SOFT, SOFT)),
        ("multiply", ("add", ("subtract", SIGN, SOFT), SOFT), np.float32(0.7)),
    ],
)
def test_a_detour_is_left_out_and_how_far_rounding_goes_is_said(tree):
    steps, _ = found(tree, (True, True, "accidental"))
    assert isinstance(steps, Steps) and steps.accident and steps.high == -steps.low
    x = np.linspace(-16, 16, 999, dtype=np.float32)
    values = computed(tree, x)[x != 0]
    far = np.abs(np.abs(values.astype(np.float64)) - steps.high).max()
    assert far <= 2 * steps.moved <= 1e-6
    three, _ = found(tree)
    assert isinstance(three, Values) and three.zero and three.found[1] == 0


@pytest.mark.parametrize(
    "tree",
    [
        ("clip", ("multiply", "x", np.float32(1e30)), (-1, 1)),  # not between -1e-30 and 1e-30
        ("divide", "x", ("add", ("abs", "x"), np.float32(1e-12))),
        ("add", ("subtract", SIGN, ("multiply", "x", np.float32(1e7))), ("multiply", "x", np.float32(1e7))),
        ("round", "x"),
    ],
)
def test_what_only_looks_two_valued_is_not(tree):
    assert found(tree)[0] is None
