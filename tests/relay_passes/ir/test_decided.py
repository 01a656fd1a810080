"""Which operands of layers that stay float are choices between constants."""

import numpy as np
import pytest
from tvm import relax

from relay_passes.ir.decided import decided_operands

op, ONE, LESS = relax.op, relax.const(np.float32(1)), relax.const(np.float32(-1))


def signs(emit, x):
    return emit(op.where(emit(op.greater_equal(x, relax.const(np.float32(0)))), ONE, LESS))


def padded(emit, x):
    return emit(op.nn.pad(emit(op.multiply(signs(emit, x), ONE)), [0, 0, 0, 0, 1, 1, 1, 1]))


def truths(emit, x):
    return emit(op.astype(emit(op.less(x, ONE)), "float32"))


def three_values(emit, x):
    return emit(op.sign(x))


def both(emit, x):
    return emit(op.concat([signs(emit, x), truths(emit, x)], 1))


def sums(emit, x):
    return emit(op.add(signs(emit, x), x))


def rectified(emit, x):
    return emit(op.where(emit(op.greater(x, LESS)), x, ONE))


def parameter(emit, x):
    return x


@pytest.mark.parametrize(
    ("operand", "decided"),
    [
        *((body, True) for body in (signs, padded, truths, three_values, both)),
        *((body, False) for body in (sums, rectified, parameter)),
    ],
)
def test_is_a_choice(operand, decided, build):
    def body(emit, x):
        given = operand(emit, x)
        channels = int(given.ty.shape[1])
        weights = relax.const(np.ones((channels, 4, 3, 3), "float32"))
        return emit(op.nn.conv2d_transpose(given, weights))

    mod = build(body, (1, 4, 5, 5))
    found = decided_operands(mod, ["layer"])
    assert [(read.layer, read.channels_first) for read in found] == [("layer", True)] * decided
    assert decided_operands(mod, ["a", "b"]) == []  # it is not known which one it is
