"""What a tensor is said to hold is what it holds: random networks are run, and each tensor is looked at."""

import numpy as np
import pytest
import tvm
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.grow_halos import grow_halos
from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.rewrite import bindings, rewrite, shape_of
from relay_passes.ir.value_range import Zero
from relay_passes.lower_kernels import lower_kernels
from relay_passes.mark_layers import mark_layers
from relay_passes.sink_transposes import sink_transposes
from schedules.targets.generic import GENERIC

op = relax.op


def const(value):
    return relax.const(np.asarray(value, "float32"))


def weights(rng, channels, kind, out=6, size=3):
    shape = (out, channels, size, size)
    if kind == "signs":
        return const(rng.choice([-1, 1], shape) * rng.choice([1, 0.5], (out, 1, 1, 1)))
    if kind == "integers":
        return const(rng.integers(-2, 3, shape))
    return const(np.abs(rng.normal(size=shape)) if kind == "positive" else rng.normal(size=shape))


def per_channel(rng, channels):
    kind = rng.integers(4)
    values = [
        rng.normal(size=channels),
        rng.integers(-2, 3, channels),
        np.zeros(channels),
        rng.random(channels),
    ]
    return const(values[kind].reshape(-1, 1, 1))


UNARY = {
    "relu": op.nn.relu, "abs": op.abs, "negative": op.negative, "sign": op.sign, "tanh": op.tanh,
    "sigmoid": op.sigmoid, "square": op.square, "round": op.round, "floor": op.floor,
    "gelu": lambda x: op.nn.gelu(op.tanh(x)), "silu": op.nn.silu, "erf": op.erf,
    "elu": lambda x: op.add(op.nn.relu(x), op.multiply(
        const(-1), op.nn.relu(op.subtract(const(1), op.exp(x))))),
    "softmax": lambda x: op.nn.softmax(x, 1), "softplus": op.nn.softplus,
    "hardtanh": lambda x: op.clip(x, -1, 1), "relu6": lambda x: op.clip(x, 0, 6),
    "leaky": lambda x: op.nn.leakyrelu(x, 0.1),
    "max_pool": lambda x: op.nn.max_pool2d(x, (2, 2), (1, 1), (1, 1)),
    "avg_pool": lambda x: op.nn.avg_pool2d(x, (2, 2), (1, 1), (1, 0), count_include_pad=True),
    "pad": lambda x: op.nn.pad(x, (0, 0, 0, 0, 1, 0, 0, 1)),
    "pad 1": lambda x: op.nn.pad(x, (0, 0, 0, 0, 1, 0, 0, 1), "constant", 1.0),
    "reflect": lambda x: op.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1), "reflect"), "flip": lambda x: op.flip(x, 1),
    "nearest": lambda x: op.image.resize2d(x, (9, 7), method="nearest_neighbor"),
    "linear": lambda x: op.image.resize2d(x, (9, 7), method="linear"),
    "mean": lambda x: op.mean(x, [2, 3], keepdims=True), "sum": lambda x: op.sum(x, [2, 3], keepdims=True),
    "channels": lambda x: op.sum(x, [1], keepdims=True), "max": lambda x: op.max(x, [1], keepdims=True),
}  # fmt: skip
BINARY = {
    "add": op.add,
    "subtract": op.subtract,
    "multiply": op.multiply,
    "maximum": op.maximum,
    "minimum": op.minimum,
    "slice_scatter": lambda a, b: op.slice_scatter(a, op.strided_slice(b, [1], [0], [1]), 0, 1, 1, 1),
}


def grown(rng, builder, x, size):
    """`size` tensors, each an operator over earlier ones."""
    tensors = [x]
    while len(tensors) < size:
        a = tensors[rng.integers(max(0, len(tensors) - 6), len(tensors))]
        n, c, h, w = shape_of(a)
        kind = rng.integers(10)
        if kind < 4:
            name = rng.choice(list(UNARY))
            if name in ("max_pool", "avg_pool", "reflect") and min(h, w) < 3:
                continue
            value = UNARY[name](a)
        elif kind == 4:
            value = BINARY[rng.choice(["add", "multiply", "maximum"])](a, per_channel(rng, c))
        elif kind == 5:
            number = const(rng.choice([0.1, 0.5, -1, 1, 0, 0.7, 3]))
            value = BINARY[rng.choice(list(BINARY)[:5])](
                *((a, number) if rng.random() < 0.7 else (number, a))
            )
        elif kind == 6:
            kinds = ["signs", "integers", "real", "positive"]
            padding = [(0, 0), (1, 1), (0, 1)][rng.integers(3)]
            if min(h, w) < 3:
                padding = (1, 1)
            value = op.nn.conv2d(a, weights(rng, c, rng.choice(kinds)), padding=padding)
        elif kind == 7:
            like = [t for t in tensors if shape_of(t) == (n, c, h, w)]
            names = ["add", "multiply", "maximum", "minimum", "slice_scatter"]
            value = BINARY[rng.choice(names)](a, like[rng.integers(len(like))])
        elif kind == 8:
            like = [t for t in tensors if shape_of(t)[2:] == (h, w)]
            both = builder.emit(op.concat([a, like[rng.integers(len(like))]], 1))
            total = shape_of(both)[1]
            value = op.strided_slice(both, [1], [int(rng.integers(2))], [total], [int(rng.integers(1, 3))])
        else:
            limit = const(rng.choice([0.0, 0.2, -1.0]))
            compare = [op.greater, op.less_equal, op.greater_equal][rng.integers(3)]
            other = (
                const(rng.choice([0.0, 1.0]))
                if rng.random() < 0.5
                else builder.emit(op.multiply(a, const(0.3)))
            )
            value = op.where(builder.emit(compare(a, limit)), a, other)
        tensors.append(builder.emit(value))
    return tensors


def ranges_of(mod):
    """Variable of `main` -> what it is said to hold."""
    numbers, known = BoundValues(), {}

    def visit(builder, var, value):
        new = value if isinstance(value, relax.Var) else builder.emit(value)
        known[var] = numbers.of(builder, new)
        return new

    rewrite(mod, visit)
    return known


def check(said, values, what, sparse):
    """values: what the tensor held in a run; sparse: it comes from windows that were all 0, by accident."""
    rounding = 1e-4 * (1 + np.abs(values))
    assert (values >= said.low - rounding).all() and (values <= said.high + rounding).all(), what
    if said.not_negative:
        assert (values >= 0).all(), what
    zeros = np.count_nonzero(values == 0)
    if said.zero is Zero.ABSENT:
        assert zeros == 0, what
    if said.zero is Zero.ACCIDENTAL and not (said.not_negative or said.not_positive or sparse):
        assert zeros <= max(10, 0.03 * values.size), f"{what}: {zeros} of {values.size} are 0"


@pytest.mark.parametrize(
    "phases", [(), (lambda mod: mark_layers(mod, {}), sink_transposes)], ids=["imported", "channels last"]
)
@pytest.mark.parametrize("seed", range(3))
def test_every_tensor_holds_what_it_is_said_to_hold(seed, phases):
    rng = np.random.default_rng(seed)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 5, 6, 6), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.Tuple(grown(rng, builder, x, 45)[1:]))
        builder.emit_func_output(result)
    mod = builder.get()
    for phase in phases:
        mod = phase(mod)
    known = ranges_of(mod)
    runnable = lower_kernels(grow_halos(find_binary(mod, GENERIC)[0]), GENERIC).module if phases else mod
    executable = tvm.compile(runnable, target=tvm.target.Target({"kind": "llvm"}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    image = rng.normal(size=(2, 5, 6, 6)) * (rng.random((2, 5, 6, 6)) < 0.8)  # pixels that are 0
    values = machine["main"](tvm.runtime.tensor(image.astype("float32")))
    made = {b.var: b.value for b in bindings(mod)}
    returned = mod["main"].body.body
    while isinstance(returned, relax.Var):
        returned = made[returned]
    held = {field: value.numpy() for field, value in zip(returned.fields, values, strict=True)}
    sparse = set()
    for var, value in made.items():
        reads = [arg for arg in getattr(value, "args", []) if isinstance(arg, relax.Var)]
        if "conv" in str(getattr(value, "op", "")):
            image = reads[0]
            while image not in held and image in made:
                image = made[image].args[0]
            if image in held and np.mean(held[image] == 0) > 0.3:
                sparse.add(var)
        if any(read in sparse for read in reads):
            sparse.add(var)
        if var in held:
            check(known[var], held[var], f"{var} = {value}", var in sparse)


DETOURS = {
    "taken away and added": lambda emit, h, s: emit(op.add(emit(op.subtract(h, s)), s)),
    "added and taken away": lambda emit, h, s: emit(op.subtract(emit(op.add(s, h)), s)),
    "a difference of equals": lambda emit, h, s: emit(op.add(h, emit(op.subtract(s, s)))),
    "in another order": lambda emit, h, s: emit(
        op.add(emit(op.subtract(h, emit(op.add(s, h)))), emit(op.add(h, s)))
    ),
}


@pytest.mark.parametrize("name", DETOURS)
@pytest.mark.parametrize("three", [True, False])
def test_signs_behind_a_straight_through_estimator_are_whole_numbers(build, name, three):
    """So a product of them less two is often 0, also where a sign is 0 by accident."""

    def body(emit, x):
        s = emit(op.tanh(x))
        if three:
            h = emit(op.sign(emit(op.add(x, const(0.25)))))
        else:
            h = emit(op.where(emit(op.greater_equal(x, const(0))), const(1), const(-1)))
        h = DETOURS[name](emit, h, s)
        return emit(op.subtract(emit(op.matmul(h, emit(op.permute_dims(h, [1, 0])))), const(2)))

    known = list(ranges_of(build(body, (4, 8))).values())
    assert known[-1].zero is Zero.COMMON


def test_a_difference_of_others_is_anything(build):
    def body(emit, x):
        s, h = emit(op.tanh(x)), emit(op.sign(x))
        return emit(op.add(emit(op.subtract(h, s)), emit(op.multiply(s, const(0.5)))))

    known = list(ranges_of(build(body, (4, 8))).values())
    assert known[-1].continuous


AVERAGES = {
    "whole windows": lambda x: op.nn.avg_pool2d(x, (2, 2), (2, 2)),
    "over padding": lambda x: op.nn.avg_pool2d(x, (2, 2), (1, 1), (1, 1), count_include_pad=True),
    "without padding": lambda x: op.nn.avg_pool2d(x, (2, 2), (1, 1), (1, 1), count_include_pad=False),
    "over the edge": lambda x: op.nn.avg_pool2d(x, (4, 4), (4, 4), ceil_mode=True),
    "adaptive": lambda x: op.nn.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive, unevenly": lambda x: op.nn.adaptive_avg_pool2d(x, (4, 5)),
    "all": lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1)),
}


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("whole", [True, False])
def test_an_average_less_one_is_often_0_where_it_is_of_whole_numbers(build, name, whole):
    rng = np.random.default_rng(0)

    def body(emit, x):
        signs = emit(op.where(emit(op.greater_equal(x, const(0))), const(1), const(-1)))
        given = emit(op.nn.conv2d(signs, weights(rng, 4, "signs"))) if whole else x
        return emit(op.subtract(emit(AVERAGES[name](given)), const(1)))

    known = list(ranges_of(build(body, (1, 4, 8, 8))).values())
    assert known[-1].zero is (Zero.COMMON if whole else Zero.ACCIDENTAL)
