"""Of each kind of kernel every candidate computes what the plain reference does; what is no candidate is
refused in words. Convolutions of bits and of floats in register tiles are in test_tiled.py."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from relay_passes.kernels.binary_product import rows_in_blocks
from schedules.geometry import Convolution
from schedules.kernels import depthwise, winograd
from schedules.kernels.convolution import binary_convolution_reference, bytes_after
from schedules.kernels.depthwise import Strip
from schedules.kernels.pooling import Pooling, pooling_reference
from schedules.parts.bits import Packing, pack
from schedules.parts.quantizer import Quantizer
from schedules.parts.weights import lay_out, offsets, pack_int8, pack_weights
from schedules.records.choices import CHOICES, TASKS
from schedules.records.kernel_task import KernelTask
from schedules.records.kinds.depthwise import DepthwiseTask
from schedules.records.kinds.int8 import Int8Task
from schedules.records.kinds.packing import PlanarPackingTask
from schedules.records.kinds.pooling import PoolingTask
from schedules.records.kinds.product import ProductTask
from schedules.records.kinds.winograd import WinogradTask, WinogradTile
from schedules.targets import Tile
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import Choice, KernelTarget, Lanes
from tests.schedules.kernels.convolutions import convolutions, depthwise_convolutions
from tests.schedules.kernels.test_int8_convolution import dot_products, quantized
from tests.schedules.kernels.test_pooling import images_for, poolings

TARGETS = st.sampled_from(ALL)
SEED = st.integers(0, 99)
FLOATS = (("float32", None),)
INTEGERS = (("int32", None),)


def some(data: st.DataObject, task: KernelTask[Any], kernels: KernelTarget) -> Any:
    pool = task.candidates(kernels)
    assert pool == task.candidates(kernels) and len(set(pool)) == len(pool)
    default = {name: value for name, value in vars(task.default(kernels)).items() if value is not None}
    assert replace(pool[0], **default) == pool[0]
    choice = data.draw(st.sampled_from(pool))
    assert task.refusal(choice) is None and isinstance(choice, CHOICES[task.kind])
    return choice


@given(data=st.data(), conv=convolutions(), seed=SEED)
@settings(deadline=None, max_examples=25)
def test_int8(host, data, conv, seed):
    assume(not depthwise.is_depthwise(conv, packed=False))
    machine = host.some(seed)
    dot = data.draw(st.sampled_from(dot_products(machine)))
    kernels = replace(machine.kernels, dot=dot)
    top, left, bottom, right = conv.padding
    halo = (top, left, bottom + bytes_after(conv, dot.word), right)
    packing = Packing(conv.channels, 8, halo=halo, quantizer=Quantizer(0.02, dot.zero_point))
    words, activations, weights = quantized(packing, conv, seed)
    task = Int8Task(conv=conv, packing=packing, word=dot.word, outputs=INTEGERS)
    tile = some(data, task, kernels)
    laid_out = lay_out(pack_int8(weights, conv, dot.word), conv.groups, tile)
    more = [offsets(weights, dot.zero_point)] if dot.zero_point else []
    kernel = task.bare_kernel(tile, kernels)
    [sums] = machine.call(kernel, [words, laid_out, *more], [(conv.out_shape, "int32")])
    np.testing.assert_array_equal(sums, binary_convolution_reference(activations, weights, conv))


@pytest.mark.parametrize("name", ["arm32", "arm64", "arm64_dotprod"])
def test_int8_on_arm(request: pytest.FixtureRequest, name: str) -> None:
    machine = request.getfixturevalue(name)
    kernels, conv = machine.kernels, Convolution(1, 6, 5, 20, 35, (3, 3), padding=(1, 1, 1, 1))
    packing = Packing(20, 8, halo=(1, 1, 2, 1), quantizer=Quantizer(0.02, kernels.dot.zero_point))
    words, activations, weights = quantized(packing, conv, 0)
    task = Int8Task(conv=conv, packing=packing, word=kernels.dot.word, outputs=INTEGERS)
    for tile in random.Random(0).sample(task.candidates(kernels), 4):
        laid_out = lay_out(pack_int8(weights, conv, kernels.dot.word), 1, tile)
        kernel = task.bare_kernel(tile, kernels)
        [sums] = machine.call(kernel, [words, laid_out], [(conv.out_shape, "int32")])
        np.testing.assert_array_equal(sums, binary_convolution_reference(activations, weights, conv))


@given(
    data=st.data(),
    kernels=TARGETS,
    sizes=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 70)] * 3),
    seed=SEED,
)
@settings(deadline=None, max_examples=25)
def test_products(host, data, kernels, sizes, seed):
    outer, inner, rows, columns, depth = sizes
    conv, packing = Convolution(outer, inner, rows, depth, columns), Packing(depth, kernels.word)
    rng = np.random.default_rng(seed)
    left, right = (rng.random((outer, inner, count, depth)) < 0.5 for count in (rows, columns))
    task = ProductTask(conv=conv, packing=packing, outputs=INTEGERS)
    tile = some(data, task, kernels)
    laid_out = rows_in_blocks(pack(right, packing), tile.lanes)
    kernel = task.bare_kernel(tile, kernels)
    [found] = host.of(kernels).call(kernel, [pack(left, packing), laid_out], [(conv.out_shape, "int32")])
    signs = [2 * bits.astype(int) - 1 for bits in (left, right)]
    np.testing.assert_array_equal(found, np.einsum("abmk,abnk->abmn", *signs))


@given(
    data=st.data(),
    kernels=TARGETS,
    conv=depthwise_convolutions(st.integers(1, 3)),
    kind=st.sampled_from(["binary", "int8", "float"]),
    seed=SEED,
)
@settings(deadline=None, max_examples=40)
def test_depthwise(host, data, kernels, conv, kind, seed):
    rng = np.random.default_rng(seed)
    shape = (conv.batch, conv.height, conv.width, conv.channels)
    assume(kind == "binary" or conv.channels == conv.groups)
    outputs = FLOATS if kind == "float" else INTEGERS
    if kind == "binary":
        conv = replace(conv, padding=(0, 0, 0, 0))  # borders are the epilogue's, and not the strip's
        assume(conv.out_height > 0 and conv.out_width > 0)
        packing = Packing(conv.channels, 8, conv.groups)
        bits, positive = rng.random(shape) < 0.5, rng.random((conv.out_channels, *conv.kernel, 1)) < 0.5
        positive = np.repeat(positive, conv.channels // conv.groups, 3)
        x, weights = 2 * bits.astype(int) - 1, 2 * positive.astype(int) - 1
        arguments = [pack(bits, packing), depthwise.in_tap_order(pack_weights(positive, 8))]
    elif kind == "int8":
        packing = Packing(conv.channels, 8, halo=conv.padding, quantizer=Quantizer(0.02))
        words, x, weights = quantized(packing, conv, seed)
        arguments = [words, depthwise.in_tap_order(weights).view(np.uint8)]
    else:
        packing = None
        x = rng.integers(-8, 9, shape).astype("float32")
        weights = rng.integers(-8, 9, (conv.out_channels, *conv.kernel, 1)).astype("float32")
        arguments = [x, depthwise.in_tap_order(weights)]
    task = DepthwiseTask(conv=conv, packing=packing, outputs=outputs)
    strip = some(data, task, kernels)
    kernel = task.bare_kernel(strip, kernels)
    [found] = host.of(kernels).call(kernel, arguments, [(conv.out_shape, outputs[0][0])])
    np.testing.assert_array_equal(found, binary_convolution_reference(x, weights, conv))


def check_winograd(
    machine, data: st.DataObject, task: WinogradTask, kernels: KernelTarget, seed: int
) -> None:
    conv, rng = task.conv, np.random.default_rng(seed)
    x = rng.integers(-8, 9, (conv.batch, conv.height, conv.width, conv.channels)).astype("float32")
    weights = rng.integers(-8, 9, (conv.out_channels, *conv.kernel, conv.channels)).astype("float32")
    tile = some(data, task, kernels)
    read = np.moveaxis(x, -1, 1) if task.planar else x
    laid_out = task.laid_out(weights, tile)
    kernel = task.bare_kernel(tile, kernels)
    [sums] = machine.call(kernel, [read, laid_out], [(conv.out_shape, "float32")])
    expected = binary_convolution_reference(x, weights, conv)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-6 * 64 * conv.products)


@given(data=st.data(), kernels=TARGETS, conv=convolutions(groups=st.just(1)), seed=SEED)
@settings(deadline=None, max_examples=25)
def test_winograd_of_an_input(host, data, kernels, conv, seed):
    conv = replace(conv, channels=seed % 4 + 1, dilation=(conv.dilation[0], 1))
    assume(conv.out_height > 0 and conv.out_width > 0)
    assume(winograd.taps_of(conv) <= winograd.MOST_TAPS and kernels.winograd_tile(conv))
    task = WinogradTask(conv=conv, planar=True, outputs=FLOATS)
    check_winograd(host.of(kernels), data, task, kernels, seed)


@given(data=st.data(), kernels=TARGETS, conv=convolutions(groups=st.just(1)), seed=SEED)
@settings(deadline=None, max_examples=25)
def test_winograd_inside(host, data, kernels, conv, seed):
    conv = replace(conv, kernel=(3, 3), strides=(1, 1), dilation=(1, 1), padding=(1, 1, 1, 1))
    assume(kernels.winograd_tile(conv))
    task = WinogradTask(conv=conv, planar=False, outputs=FLOATS)
    check_winograd(host.of(kernels), data, task, kernels, seed)


@given(
    data=st.data(),
    kernels=TARGETS,
    extents=st.tuples(*[st.integers(1, 20)] * 2),
    channels=st.sampled_from([1, 7, 24, 64, 100, 300]),
    kind=st.sampled_from(["floats", "truths", "a byte a channel"]),
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_packing_of_planes(host, data, kernels, extents, channels, kind, seed):
    """The sign of x + bias; truths are 0 and 1."""
    height, width = extents
    packing = Packing(channels, kernels.word, halo=(1, 0, 2, 1))
    if kind == "a byte a channel":
        packing = Packing(channels, 8, channels, (0, 1, 1, 0))
    rng = np.random.default_rng(seed)
    x, bias = (
        rng.normal(size=shape).astype("float32") for shape in ((1, channels, *extents), (channels, 1, 1))
    )
    x = x >= 0 if kind == "truths" else x
    task = PlanarPackingTask(
        extents=x.shape,
        operands=tuple((array.shape, str(array.dtype)) for array in (x, bias)),
        steps=("relax.add", "relax.greater_equal"),
        outputs=((packing.dtype, packing),),
    )
    choice = some(data, task, kernels)
    kernel = task.bare_kernel(choice, kernels)
    [words] = host.of(kernels).call(kernel, [x, bias], [(packing.shape(1, *extents), packing.dtype)])
    truth = np.moveaxis(x.astype("float32") + bias >= 0, 1, -1)
    np.testing.assert_array_equal(words, pack(truth, packing))


@given(
    data=st.data(),
    kernels=TARGETS,
    pool=st.sampled_from(["float32", "int32"]).flatmap(poolings),
    seed=SEED,
)
@settings(deadline=None, max_examples=30)
def test_pooling(host, data, kernels, pool, seed):
    images = images_for(pool, seed)
    task = PoolingTask(pool=pool, outputs=((pool.dtype, None),))
    choice = some(data, task, kernels)
    spec = (pool.window.out_shape, pool.dtype)
    [pooled] = host.of(kernels).call(task.bare_kernel(choice, kernels), [images], [spec])
    np.testing.assert_allclose(pooled, pooling_reference(images, pool), rtol=1e-5, atol=1e-4)


CONV = Convolution(1, 9, 9, 64, 64, (3, 3), padding=(1, 1, 1, 1))
BITS = (("uint32", Packing(64, 32)),)
BYTES = Packing(64, 8, halo=(1, 1, 2, 1), quantizer=Quantizer(1.0))
INT8 = Int8Task(conv=CONV, packing=BYTES, word=32, outputs=BITS)
PRODUCT = ProductTask(conv=Convolution(2, 3, 9, 40, 64), packing=Packing(40, 32), outputs=BITS)
IN_BYTES = replace(PRODUCT, packing=Packing(40, 8))
DEPTHWISE = DepthwiseTask(conv=replace(CONV, groups=64), outputs=BITS)
WINOGRAD = WinogradTask(conv=CONV, planar=False, outputs=BITS)
PLANES = PlanarPackingTask(extents=(1, 64, 9, 9), operands=(), steps=("relax.greater_equal",), outputs=BITS)
POOLING = PoolingTask(pool=Pooling(replace(CONV, groups=64), "float32"), outputs=BITS)
PART = WinogradTile(down=2, along=4, tiles=4, lanes=32, quantum=16, band=2)


@pytest.mark.parametrize(
    ("task", "choice", "words"),
    [
        (INT8, Tile(pixels=4, lanes=40, quantum=16), "whole vectors"),
        (INT8, Tile(pixels=4, lanes=16, quantum=2), "whole vectors"),
        (INT8, Tile(pixels=4, lanes=16, quantum=16), "16 lanes do not fill"),
        (INT8, Tile(pixels=4, lanes=32, quantum=16, unroll=2), "the processor's"),
        (INT8, Tile(pixels=4, lanes=32, quantum=16, word=8), "the processor's"),
        (INT8, Tile(pixels=4, lanes=32, quantum=16, abreast=2), "the processor's"),
        (PRODUCT, Tile(pixels=4, lanes=32, quantum=16), "not alike"),
        (PRODUCT, Tile(pixels=4, lanes=16, quantum=16), "16 lanes do not fill"),
        (PRODUCT, Tile(pixels=4, lanes=32, quantum=32, blocks_outside=True), "weights of its own"),
        (PRODUCT, Tile(pixels=4, lanes=32, quantum=32, word=16), "weights of its own"),
        (PRODUCT, Tile(pixels=4, lanes=32, quantum=32, abreast=2), "weights of its own"),
        (PRODUCT, Tile(pixels=4, lanes=32, quantum=32, word=4), "weights of its own"),
        (
            replace(PRODUCT, packing=Packing(40, 8)),
            Tile(pixels=4, lanes=16, quantum=16, word=4),
            "32 channels are",
        ),
        (DEPTHWISE, Strip(pixels=17, lanes=32, unroll=1), "larger"),
        (DEPTHWISE, Strip(pixels=1, lanes=513, unroll=1), "larger"),
        (DEPTHWISE, Strip(pixels=1, lanes=32, unroll=10), "10 of 9 taps"),
        (DEPTHWISE, Strip(pixels=1, lanes=48, unroll=1), "48 lanes do not fill"),
        (WINOGRAD, replace(PART, down=4), "round worse"),
        (WINOGRAD, replace(PART, lanes=24), "whole vectors"),
        (WINOGRAD, replace(PART, lanes=16), "16 lanes do not fill"),
        (WINOGRAD, replace(PART, tiles=65), "larger"),
        (WINOGRAD, replace(PART, band=3), "a band of 3 rows"),
        (WINOGRAD, replace(PART, band=12), "a band of 12 rows"),
        (PLANES, Lanes(lanes=24), "no 24 lanes"),
        (PLANES, Lanes(lanes=16, together=17), "larger"),
        (POOLING, Lanes(lanes=16), "16 lanes do not fill"),
        (POOLING, Lanes(lanes=1024), "larger"),
        (POOLING, Lanes(lanes=32, together=2), "by itself"),
    ],
)
def test_what_cannot_be_is_refused(task: KernelTask[Any], choice: Choice, words: str) -> None:
    assert words in (task.refusal(choice) or "")


def test_every_kind_has_one_name_and_one_choice() -> None:
    kinds = [kind for task in TASKS for kind in task.kinds]
    assert len(set(kinds)) == len(kinds) == len(CHOICES)
    for task in (INT8, PRODUCT, DEPTHWISE, WINOGRAD, PLANES, POOLING):
        assert task.kind in task.kinds and task.title


def test_a_layer_of_bytes_is_told_apart_by_what_multiplies() -> None:
    with pytest.raises(ValueError, match="words of 8 bits, and not of 32"):
        INT8.default(replace(ALL[0], dot=replace(ALL[0].dot, word=8)))
    assert INT8.key != replace(INT8, word=16).key
    assert INT8.key == replace(INT8, packing=replace(BYTES, quantizer=Quantizer(2.0))).key
