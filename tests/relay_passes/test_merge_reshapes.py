import numpy as np
import pytest
from tvm import relax

from relay_passes.merge_reshapes import merge_reshapes

op = relax.op


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (lambda emit, x: emit(op.reshape(emit(op.reshape(x, (6, 5))), (5, 6))), ["reshape"]),
        (lambda emit, x: emit(op.squeeze(emit(op.expand_dims(x, [0, 2])), [0])), ["reshape"]),
        (lambda emit, x: emit(op.add(emit(op.reshape(emit(op.flatten(x)), (2, 3, 5))), x)), ["add"]),
        (lambda emit, x: emit(op.permute_dims(emit(op.expand_dims(x, [1])), [0, 2, 1, 3])), ["reshape"]),
        (lambda emit, x: emit(op.permute_dims(emit(op.flatten(x)))), ["reshape"]),
        (
            lambda emit, x: emit(op.permute_dims(emit(op.expand_dims(x, [1])), [0, 3, 1, 2])),
            ["reshape", "permute_dims"],
        ),
        (
            lambda emit, x: emit(op.permute_dims(emit(op.reshape(x, (6, 5))), [-1, 0])),
            ["reshape", "permute_dims"],
        ),
    ],
    ids=[
        "two",
        "by other names",
        "back",
        "of extents of 1",
        "of one axis",
        "another order",
        "an axis from the end",
    ],
)
def test_is_one(build, run, operators, body, after):
    before = build(body, (2, 3, 5))
    merged = merge_reshapes(before)
    assert operators(merged) == after
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("float32")
    for got, wanted in zip(run(merged, x), run(before, x), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_what_others_read_stays(build, operators):
    def body(emit, x):
        flat = emit(op.flatten(x))
        return emit(op.exp(flat)), emit(op.sin(emit(op.reshape(flat, (5, 6)))))

    assert operators(merge_reshapes(build(body, (2, 3, 5)))) == ["reshape", "exp", "reshape", "sin"]
