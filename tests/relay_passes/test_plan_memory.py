"""Places are shared by tensors that do not live at the same time, and counted."""

import tvm
from tvm import relax

from relay_passes.pipeline import finish
from relay_passes.plan_memory import activation_bytes

op = relax.op
SHAPE = (1, 8, 16, 16)
BYTES = 4 * 8 * 16 * 16


def chain(length):
    """So many sums along an axis and back, none of which fuses with the next."""

    def emit_chain(emit, x):
        for _ in range(length):
            x = emit(op.nn.softmax(x, -1))
        return x

    return emit_chain


def test_counts_two_places_and_the_result_however_long_the_chain(build):
    host = tvm.target.Target({"kind": "llvm"})
    counts = {n: activation_bytes(finish(build(chain(n), SHAPE), host)) for n in (1, 2, 3, 8)}
    assert counts[2] - counts[1] == BYTES
    assert counts[3] - counts[2] == BYTES
    assert counts[8] == counts[3]
    assert counts[1] >= BYTES
