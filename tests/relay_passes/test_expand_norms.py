import numpy as np
import pytest
from tvm import relax

from relay_passes.expand_norms import expand_norms

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (3, 6, 4, 5)
SCALE, OFFSET = (relax.const(RNG.normal(size=6).astype("float32")) for _ in "ab")


def instance_norm(axes, **options):
    return lambda emit, x: emit(op.nn.instance_norm(x, SCALE, OFFSET, 1, axes, 1e-3, **options))


def group_norm(groups, axes=(2, 3), **options):
    return lambda emit, x: emit(op.nn.group_norm(x, SCALE, OFFSET, groups, 1, list(axes), 1e-3, **options))


def meant(x, axes, groups=6):
    """float64."""
    wide = x.astype(np.float64).reshape(3, groups, -1, *x.shape[2:])
    axes = (2, *(axis + 1 if axis else 0 for axis in axes))
    far = wide - wide.mean(axes, keepdims=True)
    return (far / np.sqrt((far**2).mean(axes, keepdims=True) + 1e-3)).reshape(x.shape)


def scaled(normal):
    by, to = (constant.value.numpy().reshape(6, 1, 1) for constant in (SCALE, OFFSET))
    return normal * by + to


@pytest.mark.parametrize(
    ("body", "right"),
    [
        (instance_norm([2, 3]), lambda x: scaled(meant(x, (2, 3)))),
        (instance_norm([0, 2, 3]), lambda x: scaled(meant(x, (0, 2, 3)))),
        (instance_norm([2, 3], center=False, scale=False), lambda x: meant(x, (2, 3))),
        (group_norm(2), lambda x: scaled(meant(x, (2, 3), groups=2))),
        (group_norm(1), lambda x: scaled(meant(x, (2, 3), groups=1))),
        (group_norm(6, center=False, scale=False), lambda x: meant(x, (2, 3))),
    ],
    ids=["instance", "over the batch", "without scales", "groups", "one group", "a group a channel"],
)
def test_becomes_averages(build, run, operators, body, right):
    after = expand_norms(build(body, SHAPE))
    assert not {"instance_norm", "group_norm"} & {name.split(".")[-1] for name in operators(after)}
    x = RNG.normal(3, 2, size=SHAPE).astype("float32")
    [got] = run(after, x)
    np.testing.assert_allclose(got, right(x), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_of_integers_what_equals_the_mean_is_zero(groups, build, run):
    """Of images of 9 pixels, whose own means are no numbers of float32."""
    shape = (300, 6, 3, 3)
    x = np.random.default_rng(0).integers(-9, 10, shape)
    grouped = x.reshape(len(x), groups, -1)
    at_mean = (grouped * grouped.shape[2] == grouped.sum(2, keepdims=True)).reshape(shape)
    after = expand_norms(build(group_norm(groups, center=False, scale=False), shape))
    [got] = run(after, x.astype("float32"))
    np.testing.assert_array_equal(got == 0, at_mean)
    assert at_mean.any()


@pytest.mark.parametrize("body", [instance_norm([2]), group_norm(2, axes=[3])], ids=["instance", "group"])
def test_other_axes_stay(build, operators, body):
    assert len(operators(expand_norms(build(body, SHAPE)))) == 1
