"""Groups become kernels, and small networks compute the same before and after the whole pipeline."""

import numpy as np
import pytest
import tvm
from tvm import relax

from relay_passes import finish, lower
from schedules.kernels import winograd_inside
from schedules.targets.generic import GENERIC
from schedules.targets.x86_avx512 import X86_AVX512

RNG = np.random.default_rng(0)
op = relax.op
SHAPE = (2, 20, 6, 5)


def number(value):
    return relax.const(value, "float32")


def per_channel(channels):
    return relax.const(RNG.integers(-4, 5, (channels, 1, 1)).astype("float32"))


def sign(emit, x):
    return emit(op.where(emit(op.greater_equal(x, number(0))), number(1), number(-1)))


def binary(emit, x, out, kernel=3, **options):
    """A binary convolution that keeps the image's size."""
    channels = int(x.ty.shape[1]) // options.get("groups", 1)
    weights = RNG.choice(np.float32([-1, 1]), (out, channels, kernel, kernel))
    weights *= RNG.choice(np.float32([0.5, 1, 2]), (out, 1, 1, 1))
    return emit(op.nn.conv2d(x, relax.const(weights), padding=(kernel // 2,) * 2, **options))


def norm(emit, x):
    channels = int(x.ty.shape[1])
    return emit(op.add(emit(op.multiply(x, per_channel(channels))), per_channel(channels)))


def stem(emit, x, out=20):
    weights = RNG.integers(-3, 4, (out, int(x.ty.shape[1]), 3, 3)).astype("float32")
    return norm(emit, emit(op.nn.conv2d(x, relax.const(weights), padding=(1, 1))))


# --------------------------------------------------------------------------- networks, of small integers


def lone(emit, x):
    """A sign of its own for each channel, and PyTorch's layout at both ends."""
    return binary(emit, sign(emit, emit(op.add(x, per_channel(20)))), 33)


def on_a_line(emit, x):
    """One-dimensional."""
    x = emit(op.reshape(x, (2, 20, 30)))
    weights = relax.const(RNG.choice(np.float32([-1, 1]), (33, 20, 3)))
    return emit(op.nn.conv1d(sign(emit, x), weights, padding=1))


def line_of_layers(emit, x):
    """Batch norm and a sign between them; the last has a group for each channel, as a memory block has."""
    hidden = on_a_line(emit, x)
    channels = RNG.integers(-4, 5, (2, 33, 1)).astype("float32")
    hidden = emit(op.add(emit(op.multiply(hidden, relax.const(channels[0]))), relax.const(channels[1])))
    dense, own = (relax.const(RNG.choice(np.float32([-1, 1]), shape)) for shape in ((33, 33, 5), (33, 1, 5)))
    hidden = emit(op.nn.conv1d(sign(emit, hidden), dense, padding=2))
    return emit(op.nn.conv1d(sign(emit, hidden), own, padding=(3, 1), groups=33))


def of_two_layouts(emit, x):
    """What the second convolution takes for channels are the columns of the first one's result."""
    x = binary(emit, sign(emit, x), 6)
    return binary(emit, sign(emit, emit(op.permute_dims(x, [0, 2, 3, 1]))), 8)


def residual_block(emit, x):
    x = stem(emit, x)
    y = emit(op.add(norm(emit, binary(emit, sign(emit, x), 20)), x))
    y = emit(op.clip(y, -9, 9))
    return emit(op.add(norm(emit, binary(emit, sign(emit, y), 20)), y))


def straight(emit, x):
    """Activations stay packed between the two."""
    x = norm(emit, binary(emit, sign(emit, stem(emit, x)), 40))
    return norm(emit, binary(emit, sign(emit, emit(op.clip(x, -1, 1))), 7))


def downsample(emit, x):
    """Two convolutions read the same signs and feed one addition."""
    bits = sign(emit, stem(emit, x))
    left = norm(emit, binary(emit, bits, 40, strides=(2, 2)))
    right = norm(emit, binary(emit, bits, 40, 1, strides=(2, 2)))
    return sign(emit, emit(op.add(left, right)))


def scaled_by_position(emit, x):
    """XNOR-Net's K, from the mean of the absolute input."""
    scale = emit(op.mean(emit(op.abs(x)), [1], keepdims=True))
    scale = emit(op.nn.conv2d(scale, relax.const(np.ones((1, 1, 3, 3), "float32")), padding=(1, 1)))
    return norm(emit, emit(op.multiply(binary(emit, sign(emit, x), 33), scale)))


def pooled(emit, x):
    x = norm(emit, binary(emit, sign(emit, x), 40))
    x = emit(op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1), ceil_mode=True))
    return binary(emit, sign(emit, x), 8)


def pooled_after_the_sign(emit, x):
    bits = sign(emit, norm(emit, binary(emit, sign(emit, x), 40)))
    return binary(emit, emit(op.nn.max_pool2d(bits, (2, 2), (2, 2))), 8)


def groups_of_many_widths(emit, x):
    for out, groups, kernel in ((40, 4, 3), (40, 40, 3), (24, 8, 1), (24, 24, 5), (48, 3, 3)):
        x = norm(emit, binary(emit, sign(emit, x), out, kernel, groups=groups))
    return x


def two_signs_of_one_tensor(emit, x):
    x = stem(emit, x)
    return binary(emit, sign(emit, x), 5, groups=5), binary(emit, sign(emit, x), 5)


def float_depthwise(emit, x):
    weights = RNG.integers(-3, 4, (20, 1, 3, 3)).astype("float32")
    return emit(op.nn.conv2d(x, relax.const(weights), padding=(1, 1), groups=20))


def several_results(emit, x):
    """The input itself, a value inside a kernel, its sign, a comparison; and a layer that nobody reads."""
    y = norm(emit, binary(emit, sign(emit, x), 20))
    binary(emit, sign(emit, y), 3)
    return x, y, sign(emit, y), emit(op.greater(y, number(1))), binary(emit, sign(emit, y), 3)


def only_the_input(emit, x):
    return x


def one_pixel(emit, x):
    x = emit(op.mean(x, [2, 3], keepdims=True))
    return binary(emit, sign(emit, norm(emit, binary(emit, sign(emit, x), 40))), 7)


def classifier(emit, x):
    x = emit(op.reshape(norm(emit, binary(emit, sign(emit, x), 4)), (2, -1)))
    weights = relax.const(RNG.choice(np.float32([-1, 1]), (120, 33)))
    hidden = emit(
        op.add(emit(op.matmul(sign(emit, x), weights)), relax.const(np.arange(33, dtype="float32") - 16))
    )
    last = relax.const(RNG.integers(-3, 4, (33, 10)).astype("float32"))
    return emit(op.matmul(sign(emit, hidden), last))


def attention(emit, x):
    """Three-dimensional: a linear layer, and a product of two activations."""
    tokens = emit(op.reshape(x, (2, 20, 30)))
    weights = relax.const(RNG.choice(np.float32([-1, 1]), (30, 12)))
    keys = emit(op.matmul(sign(emit, tokens), weights))
    scores = emit(op.matmul(sign(emit, tokens), emit(op.permute_dims(sign(emit, tokens), [0, 2, 1]))))
    return emit(op.matmul(sign(emit, scores), sign(emit, keys)))


def masked_attention(emit, x):
    """Scores that become thresholds: a scale, some of them negative the second time, and a known mask."""
    tokens = emit(op.reshape(x, (2, 20, 30)))
    keys = emit(op.permute_dims(sign(emit, tokens), [0, 2, 1]))
    mask = relax.const(RNG.random((1, 1, 20)) < 0.2)
    for scale in RNG.random((1, 1, 20)) + 0.1, RNG.normal(size=(1, 1, 20)):
        scores = emit(op.matmul(sign(emit, tokens), keys))
        scores = emit(op.multiply(scores, relax.const(scale.astype("float32"))))
        scores = emit(op.where(mask, number(-10000), scores))
        tokens = emit(op.matmul(sign(emit, scores), sign(emit, tokens)))
    return tokens


def behind_gelus(emit, x):
    """Truths of two comparisons, one of them turned."""
    for greater in op.greater, op.less:
        x = norm(emit, binary(emit, sign(emit, x), 40))
        x = emit(op.where(emit(greater(emit(op.nn.gelu(x)), number(-0.1))), number(1), number(-1)))
    return binary(emit, x, 8)


def attention_of_truths(emit, x):
    """Bits of 0 and 1 on the left, on the right, and on both sides; read by a convolution besides."""
    bits = emit(op.astype(emit(op.greater(x, number(0))), "float32"))
    right = emit(op.permute_dims(sign(emit, x), [0, 1, 3, 2]))
    truths = emit(op.astype(emit(op.less(emit(op.permute_dims(x, [0, 1, 3, 2])), number(1))), "float32"))
    scores = emit(op.multiply(emit(op.matmul(bits, right)), number(0.25)))
    total = emit(op.add(scores, emit(op.matmul(sign(emit, x), truths))))
    return emit(op.add(total, emit(op.matmul(bits, truths)))), binary(emit, bits, 3)


def zero_one(emit, x):
    """DoReFa's activations, padded with a 0 that they do have."""
    bits = emit(op.astype(emit(op.greater(x, number(0))), "float32"))
    x = norm(emit, binary(emit, bits, 40))
    return binary(emit, emit(op.astype(emit(op.less(x, number(3))), "float32")), 8)


def any_two_values(emit, x):
    """Of activations, and of the weights of each channel; grouped ones last."""
    for out, groups in ((33, 1), (9, 3)):
        bits = emit(op.where(emit(op.greater(x, number(0))), number(1.5), number(-0.25)))
        weights = RNG.choice(np.float32([-1, 1]), (out, bits.ty.shape[1].value // groups, 3, 3))
        weights = weights * np.float32(0.5) + RNG.integers(-2, 3, (out, 1, 1, 1)).astype("float32")
        x = norm(emit, emit(op.nn.conv2d(bits, relax.const(weights), padding=(2, 1), groups=groups)))
    return x


def prelus(emit, x):
    """One before a sign, and one with shifts around it whose result a residual is added to."""

    def prelu(x):
        scaled = emit(op.multiply(x, per_channel(20)))
        return emit(op.where(emit(op.greater(x, number(0))), x, scaled))

    x = prelu(stem(emit, x))
    moved = emit(op.subtract(norm(emit, binary(emit, sign(emit, x), 20)), per_channel(20)))
    return emit(op.add(emit(op.add(prelu(moved), per_channel(20))), x))


def gated(emit, x):
    """A shortcut repeated to the channels of what it is added to, then a factor for each channel from all
    of its pixels, before a sign and a second shortcut."""
    x = stem(emit, x, 16)
    y = emit(op.add(binary(emit, sign(emit, x), 48), emit(op.tile(x, (1, 3, 1, 1)))))
    y = norm(emit, emit(op.multiply(y, emit(op.sum(y, [2, 3], keepdims=True)))))
    return emit(op.add(binary(emit, sign(emit, y), 48), y))


NETWORKS = [
    lone, on_a_line, line_of_layers, of_two_layouts, residual_block, straight, downsample, scaled_by_position,
    pooled, pooled_after_the_sign, groups_of_many_widths, two_signs_of_one_tensor, float_depthwise,
    several_results, only_the_input, one_pixel, classifier, attention, masked_attention,
    behind_gelus, attention_of_truths, zero_one, any_two_values, prelus, gated,
]  # fmt: skip
BINARY = [network for network in NETWORKS if network not in (float_depthwise, only_the_input)]


def compiled(mod):
    executable = tvm.compile(mod, target=tvm.target.Target({"kind": "llvm"}))
    return relax.VirtualMachine(executable, tvm.cpu())["main"]


def call(main, *arrays):
    result = main(*map(tvm.runtime.tensor, arrays))
    return [result] if hasattr(result, "numpy") else list(result)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_a_network_computes_the_same(build, network):
    """With words of 32 bits and of 8; the other kernels have 8 alone."""
    before = build(network, SHAPE)
    lowered = lower(before, {}, X86_AVX512)
    after = finish(lowered.module, tvm.target.Target({"kind": "llvm"}), GENERIC)
    x = RNG.integers(-3, 4, SHAPE).astype("float32")
    for ours, plain in zip(call(compiled(after), x), call(compiled(before), x), strict=True):
        np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-6)


KERNELS = {
    # The packing reads the network's input as it is, plane by plane.
    lone: ["pack", "binary_convolution"],
    on_a_line: ["pack", "binary_convolution"],
    # The sums of the first meet their limits, and are bits at once; the second's are a byte a channel.
    line_of_layers: ["pack", "binary_convolution", "binary_convolution", "binary_depthwise_convolution"],
    # Three read a value before they meet again.
    prelus: ["float_convolution", "binary_convolution"],
    # What is made of a convolution's result and a sum over it, its packing writes as well.
    gated: ["float_convolution", "binary_convolution", "sum", "pack", "binary_convolution"],
    straight: ["float_convolution", "binary_convolution", "binary_convolution"],
    # Each convolution writes the float that the residual needs and the bits that the next one reads.
    residual_block: ["float_convolution", "binary_convolution", "binary_convolution"],
    # The first of two writes for itself, the second adds.
    downsample: ["float_convolution", "binary_convolution", "binary_convolution"],
    # The sum of the input is an operand of the convolution, which scales and shifts it. Groups of 11 channels
    # end within a byte.
    any_two_values: ["pack", *["binary_convolution"] * 2] * 2,
}


@pytest.mark.parametrize("network", KERNELS, ids=lambda n: n.__name__)
def test_kernels_take_in_what_is_element_wise(build, operators, network):
    lowered = lower(build(network, SHAPE), {}, GENERIC)
    plain = {"transpose", "reshape"}
    names = [name.rstrip("0123456789") for name in operators(lowered.module) if name not in plain]
    assert names == KERNELS[network]


@pytest.mark.parametrize(("size", "method"), [(24, "winograd"), (2, "direct")])
def test_a_float_layer_of_many_pixels_is_computed_by_winograd(build, size, method):
    """Of few pixels, its weights at the points take longer to read than is saved."""

    def layer(emit, x, out):
        weights = RNG.standard_normal((out, int(x.ty.shape[1]), 3, 3)).astype("float32")
        return norm(emit, emit(op.nn.conv2d(x, relax.const(weights), padding=(1, 1))))

    before = build(
        lambda emit, x: emit(op.mean(layer(emit, layer(emit, x, 64), 48), [2])), (1, 32, size, size)
    )
    lowered = lower(before, {}, X86_AVX512)
    kernels = [f for g, f in lowered.module.functions.items() if g.name_hint.startswith("float_convolution")]
    points = {"winograd": winograd_inside.POINTS, "direct": 9}[method]
    weights = sorted(int(kernel.params[1].shape[0]) for kernel in kernels)
    assert weights == [points * 32 * 64, points * 64 * 48]
    after = finish(lowered.module, tvm.target.Target({"kind": "llvm"}), GENERIC)
    x = RNG.standard_normal((1, 32, size, size)).astype("float32")
    [ours], [plain] = call(compiled(after), x), call(compiled(before), x)
    np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=0, atol=1e-5 * np.abs(plain.numpy()).max())


@pytest.mark.parametrize("network", BINARY, ids=lambda n: n.__name__)
def test_a_probe_sees_what_its_reference_computes(build, network):
    """Of each kernel `main` returns inputs, outputs and sums; plain numpy makes the same of the inputs."""
    lowered = lower(build(network, SHAPE), {}, GENERIC, probe=True)
    main = compiled(finish(lowered.module, tvm.target.Target({"kind": "llvm"}), GENERIC))
    _, *seen = call(main, RNG.integers(-3, 4, SHAPE).astype("float32"))
    seen = [tensor.numpy() for tensor in seen]
    assert {c.layer.name for c in lowered.kernel_calls} == {
        layer.name for layer in lowered.layers if layer.binarized
    }
    for kernel in lowered.kernel_calls:
        inputs, seen = seen[: len(kernel.inputs)], seen[len(kernel.inputs) :]
        outputs, sums, seen = (
            seen[: len(kernel.outputs)],
            seen[len(kernel.outputs)],
            seen[len(kernel.outputs) + 1 :],
        )
        np.testing.assert_array_equal(sums, kernel.reference_sums(inputs))
        for got, twin in zip(outputs, kernel.reference(inputs, kernel.reference_sums(inputs)), strict=True):
            np.testing.assert_array_equal(got, twin)
    assert not seen
