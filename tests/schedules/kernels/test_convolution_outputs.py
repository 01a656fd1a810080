"""What a convolution writes: numbers, packed truths, planes, extremes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.parts.bits import Packing, pack
from schedules.parts.borders import Ending, border_tables
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget
from tests.schedules.kernels.convolutions import (
    FIXED,
    HALO,
    SEED,
    TARGETS,
    binary_kernel,
    convolutions,
    expected_sums,
    random_bits,
)


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


@given(
    kernels=TARGETS,
    conv=convolutions(),
    width=st.integers(1, 40),
    bordered=st.booleans(),
    rows=st.booleans(),
    seed=SEED,
)
@settings(deadline=None, max_examples=60)
def test_extremes(host, kernels, conv, width, bordered, rows, seed):
    """Of each image or of each row."""
    conv = replace(conv, width=width, padding=conv.padding if bordered else (0, 0, 0, 0))
    assume(conv.out_height > 0 and conv.out_width > 0 and not depthwise.is_depthwise(conv, packed=True))
    check_extremes(host.of(kernels), kernels, conv, rows, seed)


@pytest.mark.parametrize("kernels", ALL, ids=lambda kernels: kernels.name)
def test_extremes_of_more_channels_than_a_vector(host, kernels):
    check_extremes(host.of(kernels), kernels, Convolution(1, 5, 7, 48, 40), False, seed=0)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_extremes_on_arm(arm, rows, padding):
    conv = Convolution(2, 6, 14, 48, 64, (3, 3), padding=(padding,) * 4)
    check_extremes(arm, arm.kernels, conv, rows, seed=0)


def check_extremes(machine, kernels: KernelTarget, conv: Convolution, rows: bool, seed: int) -> None:
    """Of the sums, and, beside their signs, of sum * scale[pixel]."""
    bits, weights = random_bits(seed, conv)
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    n, h, w, c = conv.out_shape
    shape, axes = ((n, h, c), (2,)) if rows else ((n, c), (1, 2))
    ending: Ending = "bordered dot" if any(conv.padding) else "dot"
    tables = border_tables(conv, weights, False) if ending == "bordered dot" else ()
    sums = expected_sums(bits, weights, conv)
    scale = np.random.default_rng(seed).integers(-3, 4, (n, h, w, 1)).astype("float32")
    scaled = sums * scale

    def check(epilogue: Epilogue, operands: list[np.ndarray], *expected: np.ndarray) -> None:
        kernel, laid_out = binary_kernel(conv, packing, weights, kernels, epilogue, ending)
        specs = [(output.shape, output.dtype) for output in epilogue.outputs]
        found = machine.call(kernel, [pack(bits, packing), laid_out, *operands, *tables], specs)
        twins = epilogue.evaluate(sums, operands)
        for got, wanted, twin in zip(found, expected, twins, strict=True):
            np.testing.assert_array_equal(got, wanted)
            np.testing.assert_array_equal(got, twin)

    extremes = (Output(SUM, shape, "int32", form="max"), Output(SUM, shape, "int32", form="min"))
    check(Epilogue((), (), extremes), [], sums.max(axes), sums.min(axes))
    largest = Output(Value("step", 1), shape, "float32", form="max")
    steps = (
        Step("relax.astype", (SUM,), {"dtype": "float32"}),
        Step("relax.multiply", (Value("step", 0), Value("operand", 0))),
        Step("relax.greater_equal", (SUM, Value("number", number=0, dtype="int32"))),
    )
    of_scaled = Epilogue(((scale.shape, "float32"),), steps, (largest,))
    check(of_scaled, [scale], scaled.max(axes))
    if conv.groups > 1 and (c // conv.groups) % kernels.word:
        return  # no kernel packs its signs itself
    signs = Packing(c, kernels.word)
    outputs = (
        Output(Value("step", 2), signs.shape(n, h, w), signs.dtype, signs),
        largest,
        Output(Value("step", 1), conv.out_shape, "float32"),
    )
    check(replace(of_scaled, outputs=outputs), [scale], pack(sums >= 0, signs), scaled.max(axes), scaled)


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
        (), steps, (Output(Value("step", 0), *specs[0], form="planar"), Output(Value("step", 1), *specs[1]))
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
    """sum * scale[c] + residual + few channels repeated, and sum >= threshold[c], turned for some."""
    bits, weights = random_bits(seed, conv)
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    channels = conv.out_channels
    rng = np.random.default_rng(seed)
    scale = rng.permutation(channels).astype("float32")
    residual = rng.permutation(int(np.prod(conv.out_shape))).reshape(conv.out_shape).astype("float32")
    thresholds = rng.integers(-conv.products, conv.products + 1, channels).astype("int32")
    turned = rng.random(channels) < 0.5
    few = next(n for n in (16, 12, 4, 3, 1) if channels % n == 0)
    again = rng.integers(-9, 9, (*conv.out_shape[:3], few)).astype("float32")
    operands = [scale, residual, thresholds, turned, again]
    epilogue = Epilogue(
        tuple((o.shape, str(o.dtype)) for o in operands),
        (
            Step("relax.astype", (SUM,), {"dtype": "float32"}),
            Step("relax.multiply", (Value("step", 0), Value("operand", 0))),
            Step("relax.add", (Value("step", 1), Value("operand", 1))),
            Step("relax.greater_equal", (SUM, Value("operand", 2))),
            Step("relax.logical_xor", (Value("step", 3), Value("operand", 3))),
            Step("relax.add", (Value("step", 2), Value("repeated", 4))),
        ),
        (
            Output(Value("step", 5), conv.out_shape, "float32"),
            Output(Value("step", 4), out_packing.shape(*conv.out_shape[:3]), out_packing.dtype, out_packing),
        ),
    )
    ending: Ending = "bordered dot" if any(conv.padding) else "dot"
    kernel, laid_out = binary_kernel(conv, packing, weights, kernels, epilogue, ending)
    tables = border_tables(conv, weights, False) if ending == "bordered dot" else ()
    specs = [(output.shape, output.dtype) for output in epilogue.outputs]
    numbers, words = machine.call(kernel, [pack(bits, packing), laid_out, *operands, *tables], specs)

    sums = expected_sums(bits, weights, conv)
    repeated = np.concatenate([again] * (channels // few), axis=-1)
    np.testing.assert_array_equal(numbers, sums * scale + residual + repeated)
    np.testing.assert_array_equal(words, pack((sums >= thresholds) ^ turned, out_packing))
    for got, twin in zip((numbers, words), epilogue.evaluate(sums, operands), strict=True):
        np.testing.assert_array_equal(got, twin)
