import numpy as np
import pytest
import tvm
from tvm import relax

from relay_passes.find_binary import find_binary
from relay_passes.fold_batch_norm import fold_batch_norm
from relay_passes.fold_thresholds import fold_thresholds
from relay_passes.ir.rewrite import bindings, is_call
from relay_passes.lower_kernels import lower_kernels
from relay_passes.mark_layers import mark_layers
from relay_passes.quantize_float_layers import quantize_float_layers, quantize_weights
from relay_passes.return_float_inputs import return_float_inputs
from relay_passes.sink_transposes import sink_transposes
from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution_reference
from schedules.parts.quantizer import Quantizer
from schedules.targets.generic import GENERIC

RNG = np.random.default_rng(0)
op = relax.op


def weights(*shape: int) -> np.ndarray:
    """Each output channel of another size."""
    return (RNG.normal(size=shape) * RNG.uniform(0.1, 9, (shape[0], *[1] * (len(shape) - 1)))).astype("f4")


def marked(mod):
    """(the network with its layers found, the table of them)."""
    return find_binary(sink_transposes(fold_batch_norm(mark_layers(mod, {}))), GENERIC)


def quantized(mod, ranges):
    mod, table = marked(mod)
    return quantize_float_layers(mod, GENERIC, ranges, table)


@pytest.mark.parametrize("groups", [1, 2, 6], ids=["one group", "two groups", "depthwise"])
def test_a_convolution_is_its_integers_times_the_scales(build, run, operators, groups):
    shape, w = (2, 6, 7, 5), weights(6, 6 // groups, 3, 2)

    def body(emit, x):
        return emit(op.nn.conv2d(x, relax.const(w), strides=(2, 1), padding=(1, 0, 1, 2), groups=groups))

    x = RNG.normal(size=shape).astype("f4")
    before = build(body, shape)
    [name] = [b.var.name for b in bindings(before) if is_call(b.value, "relax.nn.conv2d")]
    ceiling = float(np.abs(x).max()) * 0.8  # and a few activations are clipped
    after, [layer] = quantized(before, {name: ceiling})
    assert [o for o in operators(after) if o.startswith("bibench")] == [
        "bibench.pack",
        "bibench.int8_convolution",
    ]
    assert (layer.dtype, layer.weight_bytes, layer.binarized) == ("int8", w.size, False)
    assert "the network's input" in layer.reason
    q, scales = quantize_weights(w.transpose(0, 2, 3, 1))
    quantizer = Quantizer(ceiling / 127)
    conv = Convolution(2, 7, 5, 6, 6, (3, 2), (2, 1), (1, 0, 1, 2), groups=groups)
    sums = binary_convolution_reference(quantizer.quantize(x.transpose(0, 2, 3, 1)), q, conv)
    expected = sums * (np.float32(quantizer.scale) * scales)
    [ours] = run(after, x)
    np.testing.assert_allclose(ours, expected.transpose(0, 3, 1, 2), rtol=1e-6)


def test_weights_are_off_by_half_a_step_at_most():
    w = weights(9, 3, 3, 4)
    w[4] = 0
    q, scales = quantize_weights(w)
    assert np.abs(q).max() == 127 and (q[4] == 0).all()
    assert (np.abs(q * scales[:, None, None, None] - w) <= scales[:, None, None, None] * 0.5001).all()


def test_layers_that_read_the_same_share_its_integers(build, run, operators):
    """As the projections of an attention do; on an input that is always 0, too."""
    shape, a, b = (2, 3, 10), weights(10, 7), weights(10, 5)

    def body(emit, x):
        return emit(op.matmul(x, relax.const(a))), emit(op.matmul(x, relax.const(b)))

    before = build(body, shape)
    names = [b.var.name for b in bindings(before) if is_call(b.value, "relax.matmul")]
    x = RNG.normal(size=shape).astype("f4")
    after, table = quantized(before, dict.fromkeys(names, float(np.abs(x).max())))
    assert (
        operators(after).count("bibench.pack") == 1
        and operators(after).count("bibench.int8_convolution") == 2
    )
    for ours, plain in zip(run(after, x), (x @ a, x @ b), strict=True):
        assert np.abs(ours - plain).max() < 0.03 * np.abs(plain).max()
    after, _ = quantized(before, dict.fromkeys(names, 0.0))
    for ours in run(after, np.zeros(shape, "f4")):
        assert (ours == 0).all()


def test_what_stays_float_says_so(build):
    def body(emit, x):
        deep = emit(op.matmul(x, relax.const(np.ones((140_000, 2), "f4"))))  # sums beyond 32 bits
        return emit(op.matmul(deep, emit(op.permute_dims(deep))))

    before, table = marked(build(body, (3, 140_000)))
    assert return_float_inputs(before)[1] == ()
    after, table = quantize_float_layers(before, GENERIC, {}, table)
    assert not any(is_call(b.value, "bibench.pack") for b in bindings(after))
    assert [(t.dtype, t.notes) for t in table] == [
        ("float32", "It stays float32: there is no int8 kernel for it")
    ] * 2


def test_inputs_of_float_layers_are_returned(build, run):
    shape, w, v = (1, 4, 5, 5), weights(6, 4, 3, 3), weights(6, 2)

    def body(emit, x):
        y = emit(op.nn.relu(emit(op.nn.conv2d(x, relax.const(w)))))
        return emit(op.matmul(emit(op.mean(y, [2, 3])), relax.const(v)))

    before = build(body, shape)
    mod, table = marked(before)
    observed, names = return_float_inputs(mod)
    assert list(names) == [layer.name for layer in table]
    x = RNG.normal(size=shape).astype("f4")
    machine_outputs = run_nested(observed, x)
    np.testing.assert_array_equal(machine_outputs[1], x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(machine_outputs[0], machine_outputs[2] @ v, rtol=1e-5)


def run_nested(mod, *arrays):

    target = tvm.target.Target({"kind": "llvm"})
    machine = relax.VirtualMachine(tvm.compile(lower_kernels(mod, GENERIC).module, target=target), tvm.cpu())
    return [item.numpy() for item in machine["main"](*map(tvm.runtime.tensor, arrays))]


def test_a_sign_after_int8_sums_is_one_comparison_of_integers(build, run, operators):
    """The folded bits are those of the float chain; of a falling channel and a constant one, too."""
    shape, w = (2, 5, 6, 6), weights(8, 5, 3, 3)
    signs = RNG.choice(np.float32([-1, 1]), (4, 8, 3, 3))
    gamma = np.float32([1, -1, 0, 2, -0.3, 1, 1, 1])
    statistics = [relax.const(p) for p in (gamma, *RNG.normal(size=(2, 8)).astype("f4"), np.ones(8, "f4"))]

    def body(emit, x):
        y = emit(op.nn.conv2d(x, relax.const(w), padding=1))
        y = emit(relax.TupleGetItem(emit(op.nn.batch_norm(y, *statistics, axis=1, training=False)), 0))
        y = emit(op.where(emit(op.greater_equal(y, relax.const(0.0))), relax.const(1.0), relax.const(-1.0)))
        return emit(op.nn.conv2d(y, relax.const(signs)))

    before = build(body, shape)
    first = next(b.var.name for b in bindings(before) if is_call(b.value, "relax.nn.conv2d"))
    x = RNG.normal(size=shape).astype("f4")
    plain, _ = quantized(before, {first: float(np.abs(x).max())})
    folded = fold_thresholds(plain)
    assert "multiply" in operators(plain) and "multiply" not in operators(folded)
    for ours, expected in zip(run(folded, x), run(plain, x), strict=True):
        np.testing.assert_array_equal(ours, expected)
