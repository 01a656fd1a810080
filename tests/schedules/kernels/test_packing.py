"""The packing kernels against `bits.pack`, each of their ways, and eight bits gathered into a byte."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.kernels.packing import packing_kernel
from schedules.kernels.planar_packing import default_lanes, planar_packing_kernel
from schedules.kernels.planar_quantizing import planar_quantizing_kernel
from schedules.parts.bits import Packing, pack
from schedules.parts.epilogue import Epilogue, Output, Step, Value
from schedules.parts.quantizer import Quantizer
from schedules.parts.write_back import bits_of

HALO = st.tuples(*[st.integers(0, 3)] * 4)
SEED = st.integers(0, 2**32 - 1)
EXTENTS = st.tuples(*[st.integers(1, 4)] * 3)


def check(machine, extents: tuple[int, int, int], packing: Packing, seed: int) -> None:
    """x * scale[c] >= 0, packed."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*extents, packing.channels)).astype("float32")
    scale = rng.choice([-1, 0, 1], packing.channels).astype("float32")
    steps = (
        Step("relax.multiply", (Value("operand", 0), Value("operand", 1))),
        Step("relax.greater_equal", (Value("step", 0), Value("number", number=0.0))),
    )
    spec = (packing.shape(*extents), packing.dtype)
    epilogue = Epilogue(
        ((x.shape, "float32"), (scale.shape, "float32")), steps, (Output(Value("step", 1), *spec, packing),)
    )
    [words] = machine.call(packing_kernel((*extents, packing.channels), epilogue), [x, scale], [spec])
    np.testing.assert_array_equal(words, pack(x * scale >= 0, packing))


@given(
    extents=EXTENTS,
    few=st.integers(1, 40),
    times=st.integers(2, 8),
    word=st.sampled_from([8, 16, 32]),
    halo=HALO,
    seed=SEED,
)
@settings(deadline=None, max_examples=40)
def test_numbers_beside_their_bits_of_channels_that_repeat(host, extents, few, times, word, halo, seed):
    """x + the few channels of r again and again, and its sign."""
    rng, packing = np.random.default_rng(seed), Packing(few * times, word, halo=halo)
    x, r = (rng.integers(-3, 4, (*extents, n)).astype("float32") for n in (packing.channels, few))
    steps = (
        Step("relax.add", (Value("operand", 0), Value("repeated", 1))),
        Step("relax.greater_equal", (Value("step", 0), Value("number", number=0.0))),
    )
    specs = [(x.shape, "float32"), (packing.shape(*extents), packing.dtype)]
    outputs = (Output(Value("step", 0), *specs[0]), Output(Value("step", 1), *specs[1], packing))
    epilogue = Epilogue(((x.shape, "float32"), (r.shape, "float32")), steps, outputs)
    found = host.some(seed).call(packing_kernel(x.shape, epilogue), [x, r], specs)
    expected = x + np.concatenate([r] * times, axis=-1)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], pack(expected >= 0, packing))
    for got, twin in zip(found, epilogue.evaluate(expected, [x, r]), strict=True):
        np.testing.assert_array_equal(got, twin)


@given(extents=EXTENTS, channels=st.integers(1, 300), word=st.sampled_from([8, 16, 32]), halo=HALO, seed=SEED)
@settings(deadline=None, max_examples=40)
def test_one_group(host, extents, channels, word, halo, seed):
    check(host.some(seed), extents, Packing(channels, word, halo=halo), seed)


@given(
    extents=EXTENTS,
    groups=st.integers(2, 5),
    per_group=st.integers(1, 70),
    word=st.sampled_from([8, 16, 32]),
    halo=HALO,
    seed=SEED,
)
@settings(deadline=None, max_examples=40)
def test_groups(host, extents, groups, per_group, word, halo, seed):
    check(host.some(seed), extents, Packing(groups * per_group, word, groups, halo), seed)


@given(extents=EXTENTS, groups=st.integers(2, 300), halo=HALO, seed=SEED)
@settings(deadline=None, max_examples=20)
def test_a_byte_a_channel(host, extents, groups, halo, seed):
    check(host.some(seed), extents, Packing(groups, 8, groups, halo), seed)


PLANAR_OPERANDS = {
    "one a channel": lambda n, c, h, w: (c, 1, 1),
    "one an element": lambda n, c, h, w: (n, c, h, w),
    "one a column": lambda n, c, h, w: (w,),
    "one a row, of each channel": lambda n, c, h, w: (1, c, h, 1),
}


def check_planar(
    machine,
    extents: tuple[int, int, int],
    packing: Packing,
    kind: str,
    seed: int,
    line: bool = False,
    plane_word: int = 8,
) -> None:
    """x * scale >= 0 or a truth that is read, packed. line: of [N, C, L]."""
    rng = np.random.default_rng(seed)
    n, h, w = (extents[0], 1, extents[2]) if line else extents
    shape = (n, packing.channels, w) if line else (n, packing.channels, h, w)
    x = rng.normal(size=shape).astype("float32")
    extent = PLANAR_OPERANDS[kind](n, packing.channels, h, w)
    if line:
        extent = (*extent[:-2], extent[-1])
    scale = rng.choice([-1, 0, 1], extent).astype("float32")
    extra = rng.random(shape) < 0.3
    steps = (
        Step("relax.multiply", (Value("operand", 0), Value("operand", 1))),
        Step("relax.greater_equal", (Value("step", 0), Value("number", number=0.0))),
        Step("relax.logical_xor", (Value("step", 1), Value("operand", 2))),
    )
    spec = (packing.shape(n, h, w), packing.dtype)
    epilogue = Epilogue(
        ((x.shape, "float32"), (scale.shape, "float32"), (extra.shape, "bool")),
        steps,
        (Output(Value("step", 2), *spec, packing),),
    )
    lanes = default_lanes(packing, machine.kernels)
    kernel = planar_packing_kernel(shape, epilogue, lanes, plane_word)
    [words] = machine.call(kernel, [x, scale, extra], [spec])
    truth = ((x * scale >= 0) ^ extra).reshape(n, packing.channels, h, w)
    np.testing.assert_array_equal(words, pack(truth.transpose(0, 2, 3, 1), packing))


@given(
    extents=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 70)),
    groups=st.sampled_from([1, 1, 1, 2, 3]),
    per_group=st.integers(1, 70),
    word=st.sampled_from([8, 16, 32]),
    halo=HALO,
    kind=st.sampled_from([*PLANAR_OPERANDS]),
    line=st.booleans(),
    plane_word=st.sampled_from([8, 16, 32]),
    seed=SEED,
)
@example((1, 3, 9), 2, 60, 8, (1, 0, 2, 1), "one an element", False, 32, 0)  # the last words have 28 bits
@settings(deadline=None, max_examples=25)
def test_plane_by_plane(host, extents, groups, per_group, word, halo, kind, line, plane_word, seed):
    packing = Packing(groups * per_group, word, groups, halo)
    check_planar(host.some(seed), extents, packing, kind, seed, line, plane_word)


@given(
    extents=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 30)),
    groups=st.integers(2, 70),
    halo=HALO,
    kind=st.sampled_from([*PLANAR_OPERANDS]),
    seed=SEED,
)
@settings(deadline=None, max_examples=12)
def test_plane_by_plane_a_byte_a_channel(host, extents, groups, halo, kind, seed):
    check_planar(host.some(seed), extents, Packing(groups, 8, groups, halo), kind, seed)


@pytest.mark.parametrize("extents", [(1, 9, 11), (2, 2, 56)], ids=str)
@pytest.mark.parametrize("kind", PLANAR_OPERANDS)
def test_plane_by_plane_on_arm(arm, extents, kind):
    check_planar(arm, extents, Packing(70, 16, halo=(1, 0, 2, 1)), kind, seed=0)
    check_planar(arm, extents, Packing(20, 8, 20, halo=(1, 0, 2, 1)), kind, seed=0)


@pytest.mark.parametrize(
    "packing",
    [
        Packing(130, 8, halo=(1, 0, 2, 1)),
        Packing(130, 32, halo=(1, 1, 1, 1)),
        Packing(60, 8, groups=3),
        Packing(130, 8, groups=130),
    ],
    ids=str,
)
def test_on_arm(arm, packing):
    check(arm, (2, 3, 5), packing, seed=0)


def check_bytes(machine, extents: tuple[int, int, int], packing: Packing, seed: int) -> None:
    """x * scale[c], quantized: with ties, what is clipped, and infinities."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-600, 600, (*extents, packing.channels)).astype("float32") / 4
    x[rng.random(x.shape) < 0.05] = rng.choice(np.float32([-np.inf, np.inf, 1e30, -0.0]))
    scale = rng.choice(np.float32([-1, 0.5, 1]), packing.channels)
    spec = (packing.shape(*extents), packing.dtype)
    steps = (Step("relax.multiply", (Value("operand", 0), Value("operand", 1))),)
    epilogue = Epilogue(
        ((x.shape, "float32"), (scale.shape, "float32")), steps, (Output(Value("step", 0), *spec, packing),)
    )
    [words] = machine.call(packing_kernel((*extents, packing.channels), epilogue), [x, scale], [spec])
    np.testing.assert_array_equal(words, pack(x * scale, packing))


QUANTIZERS = st.builds(Quantizer, st.sampled_from([0.5, 1.0, 0.3]), st.sampled_from([0, 128]))


@given(
    extents=EXTENTS,
    channels=st.integers(1, 140),
    halo=HALO,
    quantizer=QUANTIZERS,
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_bytes(host, extents, channels, halo, quantizer, seed):
    check_bytes(host.some(seed), extents, Packing(channels, 8, 1, halo, quantizer), seed)


def test_bytes_have_no_gaps():
    for word, groups in ((32, 1), (8, 2)):
        with pytest.raises(ValueError, match="Quantized activations are bytes"):
            Packing(8, word, groups, quantizer=Quantizer(1.0))


def check_planes(machine, extents: tuple[int, int, int], packing: Packing, seed: int) -> None:
    batch, height, width = extents
    x = np.random.default_rng(seed).integers(-300, 300, (*extents, packing.channels)).astype("float32") / 2
    kernel = planar_quantizing_kernel(batch, height, width, packing)
    [words] = machine.call(kernel, [x.transpose(0, 3, 1, 2)], [(packing.shape(*extents), packing.dtype)])
    np.testing.assert_array_equal(words, pack(x, packing))


@given(
    extents=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 70)),
    channels=st.integers(1, 4),
    halo=HALO,
    quantizer=QUANTIZERS,
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_bytes_of_planes(host, extents, channels, halo, quantizer, seed):
    check_planes(host.some(seed), extents, Packing(channels, 8, 1, halo, quantizer), seed)


def test_bytes_on_arm(arm):
    check_bytes(arm, (2, 3, 5), Packing(131, 8, 1, (1, 0, 2, 1), Quantizer(0.5)), seed=0)
    check_planes(arm, (2, 3, 37), Packing(3, 8, 1, (1, 0, 2, 1), Quantizer(0.5)), seed=0)


def test_bits_of_every_byte(host):
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        flags = T.arg("flags", T.buffer((256 * 8,), "uint8"))
        words = T.arg("words", T.buffer((256,), "uint8"))
        with T.sblock("root"), T.serial(0, 256) as i:
            truth = flags[T.ramp(i * 8, 1, 8)] > T.broadcast(tirx.const(0, "uint8"), 8)
            T.buffer_store(words, bits_of(truth, "uint8"), [i])
    bits = np.unpackbits(np.arange(256, dtype="uint8")[:, None], axis=1, bitorder="little").ravel()
    for machine in host.each:
        [gathered] = machine.call(builder.get(), [bits], [((256,), "uint8")])
        np.testing.assert_array_equal(gathered, np.arange(256))
