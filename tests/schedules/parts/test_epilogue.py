"""Each operator of an epilogue means the same in a kernel and in numpy."""

import math

import numpy as np
import pytest

from schedules.geometry import Convolution
from schedules.kernels.convolution import float_convolution
from schedules.parts.epilogue import OPERATORS, SUM, Epilogue, Output, Step, Value
from schedules.parts.weights import lay_out
from schedules.targets.generic import GENERIC

ERF = np.vectorize(math.erf)
X, Y, A, B, V, W = (Value("operand", i) for i in range(6))
COMPARISONS = [f"relax.{name}" for name in ("greater_equal", "greater", "less_equal", "less")]
LOGICAL = [f"relax.logical_{name}" for name in ("and", "or", "xor")]
INPUTS = {
    **{f"relax.{name}": (X, Y) for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")},
    **dict.fromkeys(COMPARISONS, (X, Y)),
    **dict.fromkeys(LOGICAL, (A, B)),
    "relax.logical_not": (A,),
    "relax.bitwise_xor": (V, W),
    "relax.where": (A, X, Y),
    "relax.clip": (X, Value("number", number=-1.0), Value("number", number=1.0)),
}
ATTRIBUTES = {"relax.astype": {"dtype": "int32"}, "relax.nn.leakyrelu": {"alpha": 0.1}}
DTYPES = {
    "relax.astype": "int32",
    "relax.bitwise_xor": "uint32",
    **dict.fromkeys([*COMPARISONS, *LOGICAL, "relax.logical_not"], "bool"),
}
# What each is, by other means than the table of operators.
MEANING = {
    **{name: getattr(np, name.removeprefix("relax.")) for name in [*COMPARISONS, *INPUTS] if "." in name},
    "relax.clip": lambda x, low, high: np.sort([x, 0 * x - 1, 0 * x + 1], axis=0)[1],
    "relax.negative": np.negative,
    "relax.abs": np.abs,
    "relax.sqrt": np.sqrt,
    "relax.exp": np.exp,
    "relax.tanh": np.tanh,
    "relax.sigmoid": lambda x: (1 + np.tanh(x / 2)) / 2,
    "relax.erf": ERF,
    "relax.nn.gelu": lambda x: x * (1 + ERF(x / np.sqrt(2.0))) / 2,
    "relax.nn.gelu_tanh": lambda x: x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relax.round": np.around,
    "relax.astype": np.trunc,
    "relax.nn.relu": lambda x: x * (x > 0),
    "relax.nn.leakyrelu": lambda x: np.maximum(x, x * np.float32(0.1)),
}
APPROXIMATE = {f"relax.{name}" for name in ("exp", "tanh", "sigmoid", "erf", "nn.gelu", "nn.gelu_tanh")}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(host, name):
    """On all pairs of halves between -3 and 3: equal ones, zero and ties among them."""
    line = np.linspace(-3, 3, 13, dtype="float32")
    x, y = np.meshgrid(line, line)
    words = [(2 * (z + 3)).astype("uint32") for z in (x, y)]
    operands = [np.abs(x) if name == "relax.sqrt" else x, y, x > 0, y > 1, *words]
    step = Step(name, INPUTS.get(name, (X,)), ATTRIBUTES.get(name, {}))
    specs = [(x.shape, DTYPES.get(name, "float32")), (x.shape, "float32")]
    outputs = tuple(Output(value, *spec) for value, spec in zip((Value("step", 0), SUM), specs, strict=True))
    epilogue = Epilogue(tuple((o.shape, str(o.dtype)) for o in operands), (step,), outputs)

    conv = Convolution(1, 1, 13, 1, 13)
    tile = GENERIC.float_tile(conv)
    weights = lay_out(np.full((13, 1, 1, 1), 5, "float32"), 1, tile)
    kernel = float_convolution(conv, (13, 1), tile, GENERIC, epilogue)
    read = [
        {"operand": lambda v: operands[v.index], "number": lambda v: v.number}[v.kind](v) for v in step.inputs
    ]
    with np.errstate(all="ignore"):
        meant = MEANING[name](*read)
    for machine in host.each:
        got, sums = machine.call(kernel, [np.ones((13, 1), "float32"), weights, *operands], specs)
        assert (sums == 5).all()
        expected, _ = epilogue.evaluate(sums.reshape(conv.out_shape), operands)
        tolerance = 1e-6 if name in APPROXIMATE else 0
        near = {"rtol": tolerance, "atol": 3e-7 if "gelu" in name else 0}  # 1 + erf cancels out
        np.testing.assert_allclose(got, expected, **near)
        np.testing.assert_allclose(got, meant, **near)


def test_functions_of_functions(host):
    """Written out as one expression, these would have some 10^9 operators."""
    names = ("tanh", "nn.gelu_tanh", "sigmoid", "tanh", "erf", "exp", "nn.gelu", "tanh")
    steps = [Step("relax.add", (SUM, X))]
    for i, name in enumerate(names):
        steps.append(Step(f"relax.{name}", (Value("step", i),)))
    x = np.linspace(-9, 9, 13, dtype="float32").reshape(1, 13)
    outputs = (Output(Value("step", len(names)), x.shape, "float32"),)
    epilogue = Epilogue(((x.shape, "float32"),), tuple(steps), outputs)
    conv = Convolution(1, 1, 1, 1, 13)
    tile = GENERIC.float_tile(conv)
    weights = lay_out(np.full((13, 1, 1, 1), 5, "float32"), 1, tile)
    kernel = float_convolution(conv, (1, 1), tile, GENERIC, epilogue)
    [expected] = epilogue.evaluate(np.full(conv.out_shape, 5, "float32"), [x])
    for machine in host.each:
        [got] = machine.call(kernel, [np.ones((1, 1), "float32"), weights, x], [(x.shape, "float32")])
        np.testing.assert_allclose(got, expected, rtol=1e-5)


OF_NUMBERS = [name for name in OPERATORS if not name.startswith(("relax.logical", "relax.bitwise"))]


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_operator_on_truths(host, name):
    """On -1, 0 and 1 as a difference of two comparisons, which is read twice; so is the result."""
    x = np.linspace(-3, 3, 13, dtype="float32").reshape(1, 13)
    third = Value("step", 4)
    steps = (
        Step("relax.greater", (X, Value("number", number=1.0))),
        Step("relax.astype", (Value("step", 0),), {"dtype": "float32"}),
        Step("relax.less", (X, Value("number", number=-1.0))),
        Step("relax.astype", (Value("step", 2),), {"dtype": "float32"}),
        Step("relax.subtract", (Value("step", 1), Value("step", 3))),
        Step("relax.abs", (third,)),
        Step(
            name,
            tuple(
                {X: Value("step", 5) if name == "relax.sqrt" else third, A: Value("step", 0)}.get(v, v)
                for v in INPUTS.get(name, (X,))
            ),
            ATTRIBUTES.get(name, {}),
        ),
        Step("relax.where", (Value("step", 0), third, SUM)),
    )
    specs = [(x.shape, "float32"), (x.shape, DTYPES.get(name, "float32")), (x.shape, "float32")]
    outputs = tuple(Output(Value("step", i), *spec) for i, spec in zip((4, 6, 7), specs, strict=True))
    operands = [x, np.full_like(x, 0.5)]
    epilogue = Epilogue(tuple((o.shape, "float32") for o in operands), steps, outputs)
    conv = Convolution(1, 1, 1, 1, 13)
    tile = GENERIC.float_tile(conv)
    weights = lay_out(np.full((13, 1, 1, 1), 5, "float32"), 1, tile)
    kernel = float_convolution(conv, (1, 1), tile, GENERIC, epilogue)
    for machine in host.each:
        got = machine.call(kernel, [np.ones((1, 1), "float32"), weights, *operands], specs)
        twins = epilogue.evaluate(np.full(conv.out_shape, 5, "float32"), operands)
        for one, twin in zip(got, twins, strict=True):
            tolerance = 1e-6 if name in APPROXIMATE else 0
            np.testing.assert_allclose(one, twin, rtol=tolerance, atol=3e-7 if "gelu" in name else 0)


@pytest.mark.parametrize("shape", [(), (1,), (13,), (5, 1), (5, 13), (1, 5, 1), (1, 1, 1, 1)])
def test_operands_broadcast_from_the_right(host, shape):
    operand = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    conv = Convolution(1, 1, 5, 1, 13)
    step, tile = Step("relax.add", (SUM, X)), GENERIC.float_tile(conv)
    epilogue = Epilogue(((shape, "float32"),), (step,), (Output(Value("step", 0), (5, 13), "float32"),))
    kernel = float_convolution(conv, (5, 1), tile, GENERIC, epilogue)
    arguments = [np.ones((5, 1), "float32"), lay_out(np.full((13, 1, 1, 1), 5, "float32"), 1, tile), operand]
    [got] = host.call(kernel, arguments, [((5, 13), "float32")])
    np.testing.assert_array_equal(got, (np.full((1, 1, 5, 13), 5) + operand).reshape(5, 13))


@pytest.mark.parametrize("comparison", ["relax.greater", "relax.greater_equal"])
@pytest.mark.parametrize("channels", [1, 37])
def test_slopes_above_and_below_zero(host, comparison, channels):
    """PReLU, which is written as a comparison and selects by the sign, beside a selection that is none."""
    rng = np.random.default_rng(channels)
    x = rng.choice([-2.5, -0.0, 0.0, 1.5, -np.inf, np.inf, np.nan], (1, 1, 50, channels)).astype("float32")
    slope = rng.choice([-0.5, 0.25, 3], channels).astype("float32")
    zero, first = Value("number"), Value("step", 0)
    steps = (
        Step("relax.add", (X, SUM)),
        Step(comparison, (first, zero)),
        Step("relax.multiply", (Y, first)),
        Step("relax.where", (Value("step", 1), first, Value("step", 2))),
        Step("relax.where", (Value("step", 1), Value("step", 2), first)),
    )
    operands = ((x.shape, "float32"), (slope.shape, "float32"))
    outputs = tuple(Output(Value("step", i), x.shape, "float32") for i in (3, 4))
    epilogue = Epilogue(operands, steps, outputs)
    conv = Convolution(1, 1, 50, 1, channels)
    tile = GENERIC.float_tile(conv)
    weights = lay_out(np.zeros((channels, 1, 1, 1), "float32"), 1, tile)
    kernel = float_convolution(conv, (50, 1), tile, GENERIC, epilogue)
    arguments = [np.ones((50, 1), "float32"), weights, x, slope]
    for machine in host.each:
        got = machine.call(kernel, arguments, [(x.shape, "float32")] * 2)
        for one, twin in zip(got, epilogue.evaluate(np.zeros_like(x), [x, slope]), strict=True):
            np.testing.assert_array_equal(one, twin)


def test_what_a_float_has_a_part_in_is_no_integer():
    """Also where it was made an integer again, and where an integer was once a float."""
    steps = (
        Step("relax.add", (SUM, Value("number", number=1, dtype="int32"))),
        Step("relax.astype", (Value("step", 0),), {"dtype": "float32"}),
        Step("relax.astype", (Value("step", 1),), {"dtype": "int32"}),
        Step("relax.greater_equal", (Value("step", 0), Value("operand", 0))),
        Step("relax.logical_xor", (Value("step", 3), Value("operand", 1))),
        Step("relax.add", (Value("step", 0), Value("operand", 2))),
        Step("relax.add", (Value("step", 0), Value("number", number=1.0))),
        Step("relax.astype", (Value("step", 0),), {"dtype": "int8"}),
    )
    operands = (((3,), "int32"), ((3,), "bool"), ((3,), "float32"))
    epilogue = Epilogue(operands, steps, ())
    exact = [epilogue.is_integer(Value("step", i)) for i in range(len(steps))]
    assert exact == [True, False, False, True, True, False, False, True]


EXTREMES = [1e4, -1e4, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize(
    ("name", "meaning", "most"),
    [("relax.erf", ERF, 1), ("relax.tanh", np.tanh, 1), ("relax.exp", np.exp, np.inf)],
)
def test_polynomials_are_as_near_as_float32_allows(host, name, meaning, most):
    """Dense near 0, where a relative error shows, and far beyond where it is cut; of NaN NaN."""
    x = np.concatenate(
        [np.linspace(-87, 88.7, 999), np.linspace(-12, 12, 4001), np.logspace(-30, 1, 2000), EXTREMES]
    )
    x = x.astype("float32")
    step = Step(name, (X,))
    epilogue = Epilogue(
        ((x.shape, "float32"),), (step,), (Output(Value("step", 0), (1, *x.shape), "float32"),)
    )
    conv = Convolution(1, 1, 1, 1, len(x))
    tile = GENERIC.float_tile(conv)
    weights = lay_out(np.zeros((len(x), 1, 1, 1), "float32"), 1, tile)
    kernel = float_convolution(conv, (1, 1), tile, GENERIC, epilogue)
    [got] = host.call(kernel, [np.ones((1, 1), "float32"), weights, x], [((1, *x.shape), "float32")])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(got[0], meaning(x.astype(np.float64)), rtol=5e-7, atol=1e-44)
    assert np.nanmax(np.abs(got)) <= most
