import numpy as np
import pytest
from tvm import relax

from relay_passes.expand_prelu import expand_prelu


@pytest.mark.parametrize("slope", [[0.5], [-2, -0.5, 0, 0.25, 3]], ids=["one", "per channel"])
def test_becomes_element_wise(build, run, operators, slope):
    slope = np.asarray(slope, "float32")

    before = build(lambda emit, x: emit(relax.op.nn.prelu(x, relax.const(slope), axis=1)), (2, 5, 3))
    after = expand_prelu(before)
    assert operators(after) == ["multiply", "greater", "where"]
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    [got] = run(after, x)
    np.testing.assert_array_equal(got, np.where(x > 0, x, x * slope[:, None]))
