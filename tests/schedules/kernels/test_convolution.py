"""Binary and float convolution against their plain references, and these against the definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tvm import tirx
from tvm.target import codegen

from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.kernels.convolution import (
    binary_convolution,
    binary_convolution_reference,
    bytes_after,
    float_convolution,
    int8_convolution,
)
from schedules.parts.bits import Packing, pack
from schedules.parts.borders import Ending, border_tables, limit_table
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain
from schedules.parts.quantizer import Quantizer
from schedules.parts.weights import lay_out, offsets, pack_int8, pack_weights
from schedules.targets import x86_avx2, x86_avx512
from schedules.targets.choose import ALL
from schedules.targets.dot_products import PLAIN
from schedules.targets.kernel_target import DotProduct, KernelTarget, Tile

HALO = st.tuples(*[st.integers(0, 3)] * 4)
SEED = st.integers(0, 2**32 - 1)
CHANNELS = [1, 3, 8, 20, 32, 40, 96, 130]
GROUPS = st.sampled_from([1, 1, 1, 2, 3])


@st.composite
def convolutions(draw: st.DrawFn, groups=GROUPS) -> Convolution:
    count = draw(groups)
    kernel = draw(st.tuples(*[st.sampled_from([1, 2, 3, 3, 5, 7])] * 2))
    conv = Convolution(
        batch=draw(st.integers(1, 3)),
        height=draw(st.integers(1, 9)),
        width=draw(st.integers(1, 9)),
        channels=count * draw(st.sampled_from(CHANNELS)),
        out_channels=count * draw(st.sampled_from(CHANNELS)),
        kernel=kernel,
        strides=draw(st.tuples(*[st.integers(1, 3)] * 2)),
        padding=draw(HALO),
        dilation=draw(st.tuples(*[st.integers(1, 2)] * 2)),
        groups=count,
    )
    assume(conv.out_height > 0 and conv.out_width > 0)
    return conv


def depthwise_convolutions(per_group: st.SearchStrategy[int]) -> st.SearchStrategy[Convolution]:
    """One output channel a group."""
    groups = st.sampled_from([2, 3, 20, 64, 130])
    return st.builds(
        lambda conv, groups, per_group: replace(
            conv, groups=groups, channels=groups * per_group, out_channels=groups
        ),
        convolutions(groups=st.just(1)),
        groups,
        per_group,
    )


def random_bits(seed: int, conv: Convolution) -> tuple[np.ndarray, np.ndarray]:
    """Activations [N, H, W, C] and weights [O, KH, KW, C / groups]."""
    rng = np.random.default_rng(seed)
    weights = (conv.out_channels, *conv.kernel, conv.channels // conv.groups)
    return rng.random((conv.batch, conv.height, conv.width, conv.channels)) < 0.5, rng.random(weights) < 0.5


def expected_sums(
    bits: np.ndarray, weights: np.ndarray, conv: Convolution, zero_one: bool = False
) -> np.ndarray:
    """What a kernel's epilogue gets; over {0, 1} it is doubled."""
    activations = bits.astype(int) if zero_one else 2 * bits.astype(int) - 1
    return binary_convolution_reference(activations, 2 * weights.astype(int) - 1, conv) * (
        2 if zero_one else 1
    )


def binary_kernel(
    conv: Convolution,
    packing: Packing,
    weights: np.ndarray,
    kernels: KernelTarget,
    epilogue: Epilogue,
    ending: Ending,
) -> tuple[tirx.PrimFunc, np.ndarray]:
    """The kernel that this layer gets, and its weights as they lie in memory."""
    packed = pack_weights(weights, packing.word)
    if depthwise.is_depthwise(conv, packed=True):
        return depthwise.depthwise_convolution(
            conv, packing, epilogue, ending=ending
        ), depthwise.in_tap_order(packed)
    tile = kernels.binary_tile(conv)
    kernel = binary_convolution(conv, packing, tile, kernels, epilogue, ending=ending)
    return kernel, lay_out(packed, conv.groups, tile)


def check_sums(
    machine, kernels: KernelTarget, conv: Convolution, more: tuple, zero_one: bool, seed: int
) -> None:
    """`more`: halo beyond the padding, as another reader of the same activations might need it."""
    bits, weights = random_bits(seed, conv)
    halo = tuple(p + m for p, m in zip(conv.padding, more, strict=True))
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, halo)
    ending: Ending = "bordered dot" if zero_one or any(conv.padding) else "dot"
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, plain(conv.out_shape, "int32"), ending)
    tables = border_tables(conv, weights, zero_one) if ending == "bordered dot" else ()
    [sums] = machine.call(kernel, [pack(bits, packing), laid_out, *tables], [(conv.out_shape, "int32")])
    np.testing.assert_array_equal(sums, expected_sums(bits, weights, conv, zero_one))


@given(kernels=st.sampled_from(ALL), conv=convolutions(), zero_one=st.booleans(), seed=SEED)
@settings(deadline=None, max_examples=60)
def test_binary_truth(host, kernels, conv, zero_one, seed):
    """Counts against limits, for thresholds in, at the ends of, and beyond the range of the sums."""
    bits, weights = random_bits(seed, conv)
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    sums = expected_sums(bits, weights, conv, zero_one)
    reach = 2 * conv.products + 1
    rng = np.random.default_rng(seed)
    ends = np.asarray([-reach, reach, sums.min(), sums.max(), sums.max() + 1, 0])
    thresholds = np.where(
        rng.random(conv.out_channels) < 0.5,
        rng.choice(ends, conv.out_channels),
        rng.integers(-reach, reach + 1, conv.out_channels),
    )
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, plain(conv.out_shape, "bool"), "truth")
    base, *classes = border_tables(conv, weights, zero_one)
    limits = limit_table(base, thresholds, conv)
    [truth] = host.of(kernels).call(
        kernel, [pack(bits, packing), laid_out, limits, *classes], [(conv.out_shape, "bool")]
    )
    np.testing.assert_array_equal(truth, sums >= thresholds)


PER_GROUP = st.sampled_from([1, 1, 2, 3, 8])
TARGETS = st.sampled_from(ALL)
POWERS = st.sampled_from([2, 4, 8])


@given(kernels=TARGETS, conv=convolutions(), more=HALO, zero_one=st.booleans(), seed=SEED)
@example(ALL[0], Convolution(1, 1, 1, 64, 64, (3, 3), padding=(1, 1, 1, 1)), (0, 0, 0, 0), False, 0)
@example(ALL[0], Convolution(1, 7, 7, 512, 512, (3, 3), padding=(1, 1, 1, 1)), (0, 0, 0, 0), False, 0)
@settings(deadline=None, max_examples=70)
def test_binary(host, kernels, conv, more, zero_one, seed):
    check_sums(host.of(kernels), kernels, conv, more, zero_one, seed)


@given(
    kernels=st.sampled_from([k for k in ALL if k.word > 8]),
    conv=convolutions(),
    vectors=st.integers(1, 14),
    tile=st.builds(
        Tile,
        pixels=st.integers(1, 5),
        lanes=st.just(0),
        quantum=st.sampled_from([1, 2, 4, 8]),
        depth=st.sampled_from([2, 4, 8]),
    ),
    seed=SEED,
)
@settings(deadline=None, max_examples=40)
def test_binary_along_the_channels(host, kernels, conv, vectors, tile, seed):
    """A run of words fills `vectors` vectors, or as many for each tap."""
    conv = replace(conv, channels=conv.groups * vectors * tile.depth * kernels.word)
    lanes = tile.quantum * (1 + seed % 5)
    kernels = replace(kernels, binary_tile=lambda _: replace(tile, lanes=lanes))
    check_sums(host.of(kernels), kernels, conv, (0, 0, 0, 0), False, seed)


@pytest.mark.parametrize(("word", "depth"), [(16, 8), (8, 2)], ids=["half a vector", "bytes"])
def test_a_depth_that_does_not_fit(word, depth):
    conv = Convolution(1, 4, 4, 64, 32)
    tile, epilogue = Tile(pixels=4, lanes=32, quantum=4, depth=depth), plain(conv.out_shape, "int32")
    with pytest.raises(ValueError, match=f"a depth of {depth} "):
        binary_convolution(conv, Packing(64, word), tile, ALL[0], epilogue, ending="dot")


@given(kernels=TARGETS, conv=depthwise_convolutions(PER_GROUP), more=HALO, zero_one=st.booleans(), seed=SEED)
@settings(deadline=None, max_examples=40)
def test_binary_depthwise(host, kernels, conv, more, zero_one, seed):
    check_sums(host.of(kernels), kernels, conv, more, zero_one, seed)


@pytest.mark.parametrize("channels", [65535, 65536])
@pytest.mark.parametrize("kernels", ALL, ids=lambda k: k.name)
def test_sums_that_16_bits_hold_just_or_just_not(host, kernels, channels):
    conv = Convolution(1, 1, 1, channels, 2)
    packing = Packing(channels, kernels.word_for(conv))
    weights = np.stack([np.ones((1, 1, channels), bool), np.zeros((1, 1, channels), bool)])
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, plain((2,), "int32"), "dot")
    bits = np.ones((1, 1, 1, channels), bool)
    [sums] = host.of(kernels).call(kernel, [pack(bits, packing), laid_out], [((2,), "int32")])
    assert sums.tolist() == [channels, -channels]


FIXED = [
    Convolution(1, 7, 7, 64, 64, (3, 3), padding=(1, 1, 1, 1)),
    Convolution(2, 5, 6, 20, 35, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2)),
    Convolution(1, 5, 5, 48, 96, (3, 3), padding=(1, 1, 1, 1), groups=4),
    Convolution(1, 6, 6, 130, 130, (3, 3), padding=(1, 1, 1, 1), groups=130),
    Convolution(1, 1, 2, 300, 10),
    Convolution(1, 7, 7, 256, 40, (3, 3), padding=(1, 1, 1, 1)),
]


@pytest.mark.parametrize("zero_one", [False, True], ids=["signs", "zero_one"])
@pytest.mark.parametrize("conv", FIXED, ids=str)
def test_binary_on_arm(arm, conv, zero_one):
    check_sums(arm, arm.kernels, conv, (0, 1, 0, 2), zero_one, seed=0)


# --------------------------------------------------------------------------- what is written


@given(
    kernels=TARGETS,
    conv=convolutions(),
    halo=HALO,
    out_groups=st.integers(1, 2),
    wide=st.booleans(),
    seed=SEED,
)
@settings(deadline=None, max_examples=50)
def test_numbers_and_packed_truth_at_once(host, kernels, conv, halo, out_groups, wide, seed):
    word = kernels.word if wide else 8
    ends = {conv.out_channels // conv.groups if conv.groups > 1 else word}
    ends |= {conv.out_channels // out_groups if out_groups > 1 else word}
    assume(conv.out_channels % out_groups == 0 and all(end % word == 0 for end in ends))
    check_outputs(host.of(kernels), kernels, conv, Packing(conv.out_channels, word, out_groups, halo), seed)


@pytest.mark.parametrize("conv", FIXED[:2], ids=str)
def test_numbers_and_packed_truth_on_arm(arm, conv):
    check_outputs(arm, arm.kernels, conv, Packing(conv.out_channels, 8, halo=(1, 0, 2, 1)), seed=0)


@given(
    kernels=TARGETS,
    conv=convolutions(),
    height=st.integers(1, 20),
    width=st.sampled_from([1, 2, 3, 7, 14, 20, 56, 67]),
    integers=st.booleans(),
    seed=SEED,
)
@settings(deadline=None, max_examples=50)
def test_planes(host, kernels, conv, height, width, integers, seed):
    """Numbers that are written as [N, C, H, W]."""
    conv = replace(conv, height=height, width=width)
    assume(conv.out_height > 0 and conv.out_width > 0 and not depthwise.is_depthwise(conv, packed=True))
    check_planes(host.of(kernels), kernels, conv, integers, seed)


@pytest.mark.parametrize("conv", FIXED[:3], ids=str)
def test_planes_on_arm(arm, conv):
    check_planes(arm, arm.kernels, conv, False, seed=0)


def check_planes(machine, kernels: KernelTarget, conv: Convolution, integers: bool, seed: int) -> None:
    """The sums, and besides, channels last, their doubles."""
    bits, weights = random_bits(seed, conv)
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    n, h, w, c = conv.out_shape
    dtype = "int32" if integers else "float32"
    steps = (
        Step("relax.astype", (SUM,), {"dtype": dtype}),
        Step("relax.add", (Value("step", 0), Value("step", 0))),
    )
    specs = [((n, c, h, w), dtype), (conv.out_shape, dtype)]
    epilogue = Epilogue(
        (), steps, (Output(Value("step", 0), *specs[0], planar=True), Output(Value("step", 1), *specs[1]))
    )
    ending: Ending = "bordered dot" if any(conv.padding) else "dot"
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, epilogue, ending)
    tables = border_tables(conv, weights, False) if ending == "bordered dot" else ()
    planes, last = machine.call(kernel, [pack(bits, packing), laid_out, *tables], specs)
    sums = expected_sums(bits, weights, conv)
    np.testing.assert_array_equal(planes, sums.transpose(0, 3, 1, 2))
    for got, twin in zip((planes, last), epilogue.evaluate(sums, []), strict=True):
        np.testing.assert_array_equal(got, twin)


def check_outputs(machine, kernels: KernelTarget, conv: Convolution, out_packing: Packing, seed: int) -> None:
    """sum * scale[c] + residual, and sum >= threshold[c], turned for some channels."""
    bits, weights = random_bits(seed, conv)
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    channels = conv.out_channels
    rng = np.random.default_rng(seed)
    scale = rng.permutation(channels).astype("float32")
    residual = rng.permutation(int(np.prod(conv.out_shape))).reshape(conv.out_shape).astype("float32")
    thresholds = rng.integers(-conv.products, conv.products + 1, channels).astype("int32")
    turned = rng.random(channels) < 0.5
    operands = [scale, residual, thresholds, turned]
    epilogue = Epilogue(
        tuple((o.shape, str(o.dtype)) for o in operands),
        (
            Step("relax.astype", (SUM,), {"dtype": "float32"}),
            Step("relax.multiply", (Value("step", 0), Value("operand", 0))),
            Step("relax.add", (Value("step", 1), Value("operand", 1))),
            Step("relax.greater_equal", (SUM, Value("operand", 2))),
            Step("relax.logical_xor", (Value("step", 3), Value("operand", 3))),
        ),
        (
            Output(Value("step", 2), conv.out_shape, "float32"),
            Output(Value("step", 4), out_packing.shape(*conv.out_shape[:3]), out_packing.dtype, out_packing),
        ),
    )
    ending: Ending = "bordered dot" if any(conv.padding) else "dot"
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, epilogue, ending)
    tables = border_tables(conv, weights, False) if ending == "bordered dot" else ()
    specs = [(output.shape, output.dtype) for output in epilogue.outputs]
    numbers, words = machine.call(kernel, [pack(bits, packing), laid_out, *operands, *tables], specs)

    sums = expected_sums(bits, weights, conv)
    np.testing.assert_array_equal(numbers, sums * scale + residual)
    np.testing.assert_array_equal(words, pack((sums >= thresholds) ^ turned, out_packing))
    for got, twin in zip((numbers, words), epilogue.evaluate(sums, operands), strict=True):
        np.testing.assert_array_equal(got, twin)


@given(
    kernels=TARGETS,
    leading=st.tuples(*[st.integers(1, 3)] * 2),
    rows=st.integers(1, 9),
    depth=st.sampled_from(CHANNELS),
    columns=st.sampled_from(CHANNELS),
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_weights_per_row(host, kernels, leading, rows, depth, columns, seed):
    """A product of two activations: [a, b, rows, depth] @ [a, b, depth, columns]."""
    rng = np.random.default_rng(seed)
    left = rng.random((*leading, rows, depth)) < 0.5
    right = rng.random((*leading, columns, depth)) < 0.5
    conv = Convolution(*leading, rows, depth, columns)
    packing, tile = Packing(depth, kernels.word), kernels.binary_tile(conv)
    sets = pack_weights(right.reshape(-1, 1, 1, depth), packing.word).reshape(
        -1, columns, 1, 1, packing.words
    )
    kernel = binary_convolution(
        conv, packing, tile, kernels, plain(conv.out_shape, "int32"), ending="dot", weights_per_row=True
    )
    laid_out = np.concatenate([lay_out(one, 1, tile) for one in sets])
    [product] = host.of(kernels).call(kernel, [pack(left, packing), laid_out], [(conv.out_shape, "int32")])
    signs = [2 * side.astype(int) - 1 for side in (left, right)]
    np.testing.assert_array_equal(product, signs[0] @ signs[1].swapaxes(2, 3))


def test_a_halo_that_does_not_cover_the_padding_is_refused():
    conv = Convolution(1, 3, 3, 8, 8, (3, 3), padding=(1, 1, 1, 1))
    packing = Packing(8, 8, halo=(1, 1, 0, 1))
    tile = ALL[0].binary_tile(conv)
    with pytest.raises(ValueError, match="does not cover the padding"):
        binary_convolution(conv, packing, tile, ALL[0], plain(conv.out_shape, "int32"), ending="bordered dot")


# --------------------------------------------------------------------------- float


def check_float(machine, kernels: KernelTarget, conv: Convolution, seed: int, planar: bool = False) -> None:
    """On small integers, of which every sum is exact in any order. planar: activations [N, C, H, W]."""
    rng = np.random.default_rng(seed)
    shape = (conv.batch, conv.height, conv.width, conv.channels)
    activations = rng.integers(-8, 9, shape).astype("float32")
    weights = rng.integers(-8, 9, (conv.out_channels, *conv.kernel, conv.channels // conv.groups)).astype(
        "float32"
    )
    epilogue = plain(conv.out_shape, "float32")
    if depthwise.is_depthwise(conv, packed=False):
        kernel = depthwise.depthwise_convolution(conv, None, epilogue, ending="dot")
        laid_out = depthwise.in_tap_order(weights)
        [sums] = machine.call(kernel, [activations, laid_out], [(conv.out_shape, "float32")])
    else:
        tile = kernels.float_tile(conv)
        read = activations.transpose(0, 3, 1, 2) if planar else activations
        kernel = float_convolution(conv, read.shape, tile, kernels, epilogue, planar=planar)
        laid_out = lay_out(weights.transpose(0, 3, 1, 2) if planar else weights, conv.groups, tile)
        [sums] = machine.call(kernel, [read, laid_out], [(conv.out_shape, "float32")])
    np.testing.assert_array_equal(sums, binary_convolution_reference(activations, weights, conv))


@given(kernels=TARGETS, conv=convolutions(), seed=SEED)
@settings(deadline=None, max_examples=50)
def test_float(host, kernels, conv, seed):
    check_float(host.of(kernels), kernels, conv, seed)


@given(kernels=TARGETS, conv=convolutions(st.just(1)), channels=st.integers(1, 4), seed=SEED)
@settings(deadline=None, max_examples=30)
def test_float_plane_by_plane(host, kernels, conv, channels, seed):
    conv = replace(conv, channels=channels, dilation=(conv.dilation[0], 1))
    check_float(host.of(kernels), kernels, conv, seed, planar=True)


@given(kernels=TARGETS, conv=depthwise_convolutions(st.just(1)), seed=SEED)
@settings(deadline=None, max_examples=25)
def test_float_depthwise(host, kernels, conv, seed):
    check_float(host.of(kernels), kernels, conv, seed)


@pytest.mark.parametrize("conv", FIXED, ids=str)
def test_float_on_arm(arm, conv):
    check_float(arm, arm.kernels, conv, seed=0)


# --------------------------------------------------------------------------- int8


def dot_products(machine) -> list[DotProduct]:
    """Those whose instructions this machine has."""
    features = {str(feature) for feature in codegen.llvm_get_cpu_features(machine.target)}
    needed = {"avx2": x86_avx2.PAIRS, "avx512bw": x86_avx512.PAIRS, "avx512vnni": x86_avx512.VNNI}
    return [PLAIN, *(dot for feature, dot in needed.items() if feature in features)]


def quantized(packing: Packing, conv: Convolution, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(packed activations, what they stand for, weights), with many of the largest."""
    rng = np.random.default_rng(seed)
    shape = (conv.batch, conv.height, conv.width, conv.channels)
    values = (rng.normal(size=shape) * rng.choice([1, 100])).astype("float32")
    weights = rng.integers(-127, 128, (conv.out_channels, *conv.kernel, conv.channels // conv.groups))
    weights[rng.random(weights.shape) < rng.random()] = rng.choice([-127, 127])
    return pack(values, packing), packing.quantizer.quantize(values), weights.astype(np.int8)


def check_int8(machine, dot: DotProduct, conv: Convolution, more: tuple, seed: int) -> None:
    """Every sum is exact, and so are the bytes that an epilogue makes of them for the next layer."""
    kernels = replace(machine.kernels, dot=dot)
    top, left, bottom, right = (p + m for p, m in zip(conv.padding, more, strict=True))
    halo = (top, left, bottom + bytes_after(conv, dot.word), right)  # a row has a byte at least
    packing = Packing(conv.channels, 8, halo=halo, quantizer=Quantizer(0.02, dot.zero_point))
    words, activations, weights = quantized(packing, conv, seed)
    after = Packing(conv.out_channels, 8, 1, more, Quantizer(conv.products * 8, dot.zero_point))
    out = Output(Value("step", 0), after.shape(*conv.out_shape[:3]), after.dtype, after)
    epilogue = Epilogue(
        (),
        (Step("relax.astype", (SUM,), {"dtype": "float32"}),),
        (Output(SUM, conv.out_shape, "int32"), out),
    )
    tile = dot.tile(conv)
    kernel = int8_convolution(conv, packing, tile, kernels, epilogue)
    laid_out = lay_out(pack_int8(weights, conv, dot.word), conv.groups, tile)
    tables = [offsets(weights, dot.zero_point)] if dot.zero_point else []
    specs = [(o.shape, o.dtype) for o in epilogue.outputs]
    sums, next_words = machine.call(kernel, [words, laid_out, *tables], specs)
    expected = binary_convolution_reference(activations, weights, conv)
    np.testing.assert_array_equal(sums, expected)
    np.testing.assert_array_equal(next_words, pack(expected.astype("float32"), after))


@given(data=st.data(), conv=convolutions(), more=HALO, seed=SEED)
@settings(deadline=None, max_examples=60)
def test_int8(host, data, conv, more, seed):
    machine = host.some(seed)
    check_int8(machine, data.draw(st.sampled_from(dot_products(machine))), conv, more, seed)


def test_a_halo_without_room_for_whole_words_is_refused(host):
    kernels = replace(host.kernels, dot=x86_avx512.VNNI)
    conv = Convolution(1, 4, 4, 3, 16, (3, 3), padding=(1, 1, 1, 1))
    packing = Packing(3, 8, halo=conv.padding, quantizer=Quantizer(0.02, 128))
    with pytest.raises(ValueError, match="leaves less behind the last run"):
        int8_convolution(conv, packing, x86_avx512.VNNI.tile(conv), kernels, plain(conv.out_shape, "int32"))


def check_int8_depthwise(machine, conv: Convolution, more: tuple, seed: int) -> None:
    halo = tuple(p + m for p, m in zip(conv.padding, more, strict=True))
    packing = Packing(conv.channels, 8, halo=halo, quantizer=Quantizer(0.02))
    words, activations, weights = quantized(packing, conv, seed)
    kernel = depthwise.depthwise_convolution(conv, packing, plain(conv.out_shape, "int32"), ending="dot")
    laid_out = depthwise.in_tap_order(weights).view(np.uint8)
    [sums] = machine.call(kernel, [words, laid_out], [(conv.out_shape, "int32")])
    np.testing.assert_array_equal(sums, binary_convolution_reference(activations, weights, conv))


@given(conv=depthwise_convolutions(st.just(1)), more=HALO, seed=SEED)
@settings(deadline=None, max_examples=25)
def test_int8_depthwise(host, conv, more, seed):
    check_int8_depthwise(host.some(seed), conv, more, seed)


@pytest.mark.parametrize("channels", [1039, 133_143])
def test_int8_sums_that_32_bits_hold_just(host, channels):
    """Only on the way, with a zero point, they overflow and come back."""
    conv = Convolution(1, 1, 1, channels, 2)
    for machine, dot in [(each, dot) for each in host.each for dot in dot_products(each)]:
        halo = (0, 0, bytes_after(conv, dot.word), 0)
        packing = Packing(channels, 8, halo=halo, quantizer=Quantizer(1.0, dot.zero_point))
        weights = np.full((2, 1, 1, channels), 127, np.int8)
        weights[1] = -127
        words = pack(np.full((1, 1, 1, channels), 127, np.float32), packing)
        tile = dot.tile(conv)
        kernels = replace(machine.kernels, dot=dot)
        kernel = int8_convolution(conv, packing, tile, kernels, plain((2,), "int32"))
        tables = [offsets(weights, dot.zero_point)] if dot.zero_point else []
        laid_out = lay_out(pack_int8(weights, conv, dot.word), 1, tile)
        [sums] = machine.call(kernel, [words, laid_out, *tables], [((2,), "int32")])
        assert sums.tolist() == [channels * 127**2, -channels * 127**2]


@pytest.mark.parametrize("machine", ["arm64", "arm64_dotprod", "arm32"])
@pytest.mark.parametrize(
    "conv", [*FIXED, Convolution(1, 9, 11, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3))], ids=str
)
def test_int8_on_arm(request, machine, conv):
    arm = request.getfixturevalue(machine)
    if conv.groups == conv.channels > 1:
        check_int8_depthwise(arm, conv, (0, 1, 0, 2), seed=0)
    else:
        check_int8(arm, arm.kernels.dot, conv, (0, 1, 0, 2), seed=0)


@pytest.mark.parametrize("machine", ["arm64", "arm32"])
def test_no_dot_product_instruction(request, machine):
    check_int8(request.getfixturevalue(machine), PLAIN, FIXED[1], (0, 0, 0, 0), seed=0)


# --------------------------------------------------------------------------- what is made at compile time


@given(conv=convolutions(), seed=SEED)
@settings(deadline=None, max_examples=30)
def test_the_reference_is_the_definition(conv, seed):
    """One output element, as a sum over the taps inside the image."""
    bits, weights = random_bits(seed, conv)
    rng = np.random.default_rng(seed)
    n, oh, ow, o = (int(rng.integers(extent)) for extent in conv.out_shape)
    group = o // (conv.out_channels // conv.groups)
    depth = conv.channels // conv.groups
    total = 0
    for kh, kw in np.ndindex(conv.kernel):
        y = oh * conv.strides[0] + kh * conv.dilation[0] - conv.padding[0]
        x = ow * conv.strides[1] + kw * conv.dilation[1] - conv.padding[1]
        if 0 <= y < conv.height and 0 <= x < conv.width:
            seen = bits[n, y, x, group * depth : (group + 1) * depth]
            total += depth - 2 * int((seen ^ weights[o, kh, kw]).sum())
    assert expected_sums(bits, weights, conv)[n, oh, ow, o] == total


@given(conv=convolutions(), zero_one=st.booleans(), seed=SEED)
@settings(deadline=None, max_examples=50)
def test_border_tables_make_the_sums_of_counts(conv, zero_one, seed):
    """dot = base - 2 * count, where count takes the padding for bits 0."""
    bits, weights = random_bits(seed, conv)
    top, left, bottom, right = conv.padding
    padded = np.pad(bits, ((0, 0), (top, bottom), (left, right), (0, 0)))
    enlarged = replace(conv, height=padded.shape[1], width=padded.shape[2], padding=(0, 0, 0, 0))
    counts = (conv.products - expected_sums(padded, weights, enlarged)) // 2
    base, rows, columns = border_tables(conv, weights, zero_one)
    sums = base[rows][:, columns] - 2 * counts
    np.testing.assert_array_equal(sums, expected_sums(bits, weights, conv, zero_one))
