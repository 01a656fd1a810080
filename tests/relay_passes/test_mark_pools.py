import numpy as np
import pytest
from tvm import relax

from relay_passes.mark_pools import mark_pools

RNG = np.random.default_rng(0)
op = relax.op
MAX, AVERAGE = op.nn.max_pool2d, op.nn.avg_pool2d

TAKEN = {
    "2x2": (MAX, (1, 8, 8, 6), dict(pool_size=(2, 2), strides=(2, 2))),
    "3x3": (MAX, (2, 7, 9, 20), dict(pool_size=(3, 3), strides=(2, 2), padding=(1, 1, 1, 1))),
    "ceil": (MAX, (1, 8, 8, 6), dict(pool_size=(3, 3), strides=(2, 2), ceil_mode=True)),
    "a rest": (MAX, (1, 8, 9, 6), dict(pool_size=(2, 3), strides=(3, 2))),
    "dilated": (MAX, (1, 9, 9, 6), dict(pool_size=(3, 2), dilation=(2, 3))),
    "average": (AVERAGE, (1, 8, 8, 6), dict(pool_size=(3, 3), padding=(1, 1, 1, 1))),
    "average, all": (
        AVERAGE,
        (1, 8, 8, 6),
        dict(pool_size=(3, 3), padding=(1, 1, 1, 1), count_include_pad=True),
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_pools(build, run, operators, name):
    pool, shape, options = TAKEN[name]
    before = build(lambda emit, x: emit(pool(x, layout="NHWC", **options)), shape)
    after = mark_pools(before)
    assert operators(after) == ["bibench.pool"]
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(run(after, x)[0], run(before, x)[0], rtol=1e-5, atol=1e-6)


LEFT = {
    "channels first": (MAX, (1, 8, 8, 6), dict(pool_size=(2, 2), layout="NCHW")),
    "one channel": (AVERAGE, (1, 8, 8, 1), dict(pool_size=(2, 2), layout="NHWC")),
    "widened average": (
        AVERAGE,
        (1, 8, 8, 6),
        dict(pool_size=(3, 3), strides=(2, 2), ceil_mode=True, layout="NHWC"),
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_others_stay(build, operators, name):
    pool, shape, options = LEFT[name]
    mod = mark_pools(build(lambda emit, x: emit(pool(x, **options)), shape))
    assert "bibench.pool" not in operators(mod)
