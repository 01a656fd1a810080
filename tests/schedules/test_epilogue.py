"""Each operator of an epilogue means the same in a kernel and in numpy."""

import numpy as np
import pytest

from schedules.convolution import float_convolution
from schedules.epilogue import OPERATORS, SUM, Epilogue, Output, Step, Value
from schedules.geometry import Convolution
from schedules.targets.generic import GENERIC
from schedules.weights import lay_out

X, Y, A, B = (Value("operand", i) for i in range(4))
COMPARISONS = [f"relax.{name}" for name in ("greater_equal", "greater", "less_equal", "less")]
INPUTS = {
    **{f"relax.{name}": (X, Y) for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")},
    **dict.fromkeys(COMPARISONS, (X, Y)),
    "relax.logical_xor": (A, B),
    "relax.logical_not": (A,),
    "relax.where": (A, X, Y),
    "relax.clip": (X, Value("number", number=-1.0), Value("number", number=1.0)),
}
ATTRIBUTES = {"relax.astype": {"dtype": "int32"}, "relax.nn.leakyrelu": {"alpha": 0.1}}
DTYPES = {
    "relax.astype": "int32",
    **dict.fromkeys([*COMPARISONS, "relax.logical_xor", "relax.logical_not"], "bool"),
}
APPROXIMATE = {"relax.exp", "relax.tanh", "relax.sigmoid"}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(host, name):
    """On all pairs of numbers between -3 and 3, equal ones and zero among them."""
    line = np.linspace(-3, 3, 7, dtype="float32")
    x, y = np.meshgrid(line, line)
    operands = [np.abs(x) if name == "relax.sqrt" else x, y, x > 0, y > 1]
    step = Step(name, INPUTS.get(name, (X,)), ATTRIBUTES.get(name, {}))
    specs = [(x.shape, DTYPES.get(name, "float32")), (x.shape, "float32")]
    outputs = tuple(Output(value, *spec) for value, spec in zip((Value("step", 0), SUM), specs, strict=True))
    epilogue = Epilogue(tuple((o.shape, str(o.dtype)) for o in operands), (step,), outputs)

    conv = Convolution(1, 1, 7, 1, 7)
    tile = GENERIC.float_tile(conv)
    weights = lay_out(np.full((7, 1, 1, 1), 5, "float32"), 1, tile)
    kernel = float_convolution(conv, (7, 1), tile, GENERIC, epilogue)
    for machine in host.each:
        got, sums = machine.call(kernel, [np.ones((7, 1), "float32"), weights, *operands], specs)
        assert (sums == 5).all()
        expected, _ = epilogue.evaluate(sums.reshape(conv.out_shape), operands)
        np.testing.assert_allclose(got, expected, rtol=1e-6 if name in APPROXIMATE else 0)
