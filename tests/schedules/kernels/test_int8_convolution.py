"""Int8 convolution against its plain reference."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.target import codegen

from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.kernels.convolution import (
    binary_convolution_reference,
    bytes_after,
    int8_convolution,
)
from schedules.parts.bits import Packing, pack
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain
from schedules.parts.quantizer import Quantizer
from schedules.parts.weights import lay_out, offsets, pack_int8
from schedules.targets import x86_avx2, x86_avx512
from schedules.targets.dot_products import PLAIN
from schedules.targets.kernel_target import DotProduct
from tests.schedules.kernels.convolutions import (
    FIXED,
    HALO,
    SEED,
    convolutions,
    depthwise_convolutions,
)


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
    strip = depthwise.default_strip(conv, packing, machine.kernels)
    epilogue = plain(conv.out_shape, "int32")
    kernel = depthwise.depthwise_convolution(conv, packing, epilogue, ending="dot", strip=strip)
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
