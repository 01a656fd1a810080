"""What is not a layer computes the same with and without a schedule."""

from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from relay_passes.pipeline import finish
from schedules.targets.generic import GENERIC

RNG = np.random.default_rng(0)
HOST = tvm.target.Target({"kind": "llvm"})
op = relax.op


def compute(mod, x):
    machine = relax.VirtualMachine(tvm.compile(mod, target=HOST), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x)).numpy()


def truths(emit, x):
    above, below = emit(op.greater(x, relax.const(0.5))), emit(op.less(x, relax.const(-0.5)))
    both = emit(op.concat([above, below], 1))
    return emit(op.astype(emit(op.logical_xor(both, emit(op.logical_not(both)))), "float32"))


WORK = {
    "element by element": lambda emit, x: emit(op.nn.gelu(emit(op.add(x, x)))),
    "a function of a function": lambda emit, x: emit(
        op.tanh(emit(op.log(emit(op.add(emit(op.exp(x)), relax.const(1.0))))))
    ),
    "rows": lambda emit, x: emit(op.mean(x, [3])),
    "planes": lambda emit, x: emit(op.mean(x, [1])),
    "columns": lambda emit, x: emit(op.sum(x, [1, 2])),
    "everything": lambda emit, x: emit(op.max(x)),
    "softmax": lambda emit, x: emit(op.nn.softmax(x, -1)),
    "permutation": lambda emit, x: emit(op.permute_dims(x, [0, 3, 1, 2])),
    "pool": lambda emit, x: emit(op.nn.avg_pool2d(x, (3, 3), padding=(1, 1, 1, 1))),
    "truths": truths,
    "a function of truths": lambda emit, x: emit(
        op.sigmoid(emit(op.astype(emit(op.greater(x, relax.const(0.5))), "float32")))
    ),
    "a function of integers of truths": lambda emit, x: emit(
        op.tanh(emit(op.add(x, emit(op.astype(emit(op.astype(emit(op.less(x, x)), "int64")), "float32")))))
    ),
    "a truth between": lambda emit, x: emit(op.where(emit(op.less(x, emit(op.abs(x)))), x, emit(op.exp(x)))),
}


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 24, 20, 32), (2, 6, 28, 28), (2, 130, 1, 1)], ids=str)
@pytest.mark.parametrize("name", WORK)
def test_computes_the_same(build, name, shape):
    mod = build(WORK[name], shape)
    x = RNG.normal(size=shape).astype("float32")
    np.testing.assert_allclose(compute(finish(mod, HOST, GENERIC), x), compute(mod, x), rtol=1e-4, atol=1e-5)


def test_a_mean_is_divided_where_it_is_added_up(build):
    """And its sums are not written to memory in between."""
    mod = build(lambda emit, x: emit(op.mean(x, [3])), (2, 24, 20, 4, 32))
    [kernel] = [f for name, f in finish(mod, HOST, GENERIC).functions.items() if name.name_hint == "mean"]
    assert kernel.script().count("T.parallel") == 1


def test_no_vector_spans_two_rows(build):
    mod = build(WORK["element by element"], (2, 24, 20, 28))
    [kernel] = [f for name, f in finish(mod, HOST, GENERIC).functions.items() if name.name_hint != "main"]
    assert "T.vectorized(T.int64(28))" in kernel.script() and "T.parallel" in kernel.script()


@pytest.mark.parametrize(("target", "shared"), [(GENERIC, True), (replace(GENERIC, byte_rate=60), False)])
def test_uses_vectors_and_threads(build, target, shared):
    """245 KB take 25 us at 10 bytes a nanosecond, and 4 at 60."""
    mod = build(WORK["element by element"], (2, 24, 20, 32))
    [kernel] = [f for name, f in finish(mod, HOST, target).functions.items() if name.name_hint != "main"]
    assert ("T.parallel" in kernel.script()) == shared and "T.vectorized" in kernel.script()


@pytest.mark.parametrize("name", ["exp", "log", "sigmoid", "tanh"])
def test_functions_are_computed_in_vectors(build, name):
    """As near to float64 as floats are, and NaN of NaN."""
    everywhere = np.linspace(-80, 80, 497), np.logspace(-44, 38, 487), np.linspace(0.999, 1.001, 401)
    numbers = np.concatenate([*everywhere, [0, np.inf, -np.inf, np.nan]]).astype("float32")
    mod = finish(build(lambda emit, x: emit(getattr(relax.op, name)(x)), numbers.shape), HOST, GENERIC)
    assert not any(f"T.{name}(" in f.script() for f in mod.functions.values() if isinstance(f, tirx.PrimFunc))
    wide = numbers.astype(np.float64)
    with np.errstate(all="ignore"):
        right = {
            "exp": np.exp(wide),
            "log": np.log(wide),
            "sigmoid": 1 / (1 + np.exp(-wide)),
            "tanh": np.tanh(wide),
        }[name].astype(np.float32)
    np.testing.assert_allclose(compute(mod, numbers), right, rtol=5e-7, atol=1e-44)
