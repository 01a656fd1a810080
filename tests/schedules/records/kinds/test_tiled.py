"""Every candidate is the same function as the default, and what is no candidate is refused in words."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels.convolution import (
    binary_convolution,
    binary_convolution_reference,
    float_convolution,
    lay_out_bits,
    limit_dtype,
)
from schedules.parts.bits import Packing, pack
from schedules.parts.borders import border_tables, limit_table
from schedules.parts.epilogue import SUM, Epilogue, Output, plain
from schedules.parts.weights import lay_out, pack_weights
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.tiled import TiledTask
from schedules.targets import KernelTarget, Tile
from schedules.targets.choose import ALL

TARGETS = st.sampled_from(ALL)
SIZES = st.integers(1, 15)


@st.composite
def convolutions(draw: st.DrawFn, groups: int = 1) -> Convolution:
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 3)]))
    return Convolution(
        draw(st.integers(1, 2)),
        draw(SIZES) + 2,
        draw(SIZES) + 2,
        groups * draw(st.sampled_from([16, 32, 40, 64])),
        groups * draw(st.sampled_from([32, 64, 70, 160])),
        kernel,
        draw(st.sampled_from([(1, 1), (2, 2)])),
        draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1)])),
        groups=groups,
    )


def some(draw: st.DataObject, task: TiledTask, kernels: KernelTarget) -> Tile:
    tile = draw.draw(st.sampled_from(task.candidates(kernels)))
    assert task.refusal(tile) is None
    return tile


@given(
    data=st.data(), kernels=TARGETS, conv=st.one_of(convolutions(), convolutions(2)), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=30)
def test_binary(host, data, kernels, conv, seed):
    """From bits to bits, with borders: the sums, the thresholds and the packing at once."""
    rng = np.random.default_rng(seed)
    bits = rng.random((conv.batch, conv.height, conv.width, conv.channels)) < 0.5
    weights = rng.random((conv.out_channels, *conv.kernel, conv.channels // conv.groups)) < 0.5
    packing = Packing(conv.channels, kernels.word_for(conv), conv.groups, conv.padding)
    written = Packing(conv.out_channels, kernels.word)
    if conv.groups > 1 and conv.out_channels // conv.groups % kernels.word:
        written = None
    shape = written.shape(*conv.out_shape[:3]) if written else conv.out_shape
    output = Output(SUM, shape, written.dtype if written else "bool", written)
    epilogue = Epilogue((), (), (output,))
    tile = some(
        data,
        TiledTask(conv=conv, packing=packing, ending="truth", outputs=outputs_of(epilogue)),
        kernels,
    )
    kernel = binary_convolution(conv, packing, tile, kernels, epilogue, ending="truth")
    base, *classes = border_tables(conv, weights, False)
    thresholds = rng.integers(-3, 4, conv.out_channels)
    packed = pack_weights(weights, packing.word).view(f"uint{tile.word or packing.word}")
    arguments = [
        pack(bits, packing),
        lay_out_bits(packed, conv.groups, tile),
        limit_table(base, thresholds, conv).astype(limit_dtype(conv, packing, tile)),
    ]
    [found] = host.of(kernels).call(kernel, [*arguments, *classes], [(shape, output.dtype)])
    sums = binary_convolution_reference(2 * bits.astype(int) - 1, 2 * weights.astype(int) - 1, conv)
    np.testing.assert_array_equal(found, pack(sums >= thresholds, written) if written else sums >= thresholds)


@given(data=st.data(), kernels=TARGETS, conv=convolutions(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_float(host, data, kernels, conv, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 9, (conv.batch, conv.height, conv.width, conv.channels)).astype("float32")
    weights = rng.integers(-8, 9, (conv.out_channels, *conv.kernel, conv.channels)).astype("float32")
    epilogue = plain(conv.out_shape, "float32")
    tile = some(data, TiledTask(conv=conv, outputs=outputs_of(epilogue)), kernels)
    kernel = float_convolution(conv, x.shape, tile, kernels, epilogue)
    [sums] = host.of(kernels).call(kernel, [x, lay_out(weights, 1, tile)], [(conv.out_shape, "float32")])
    np.testing.assert_array_equal(sums, binary_convolution_reference(x, weights, conv))


def test_the_first_candidate_is_the_default_and_no_kernel_comes_twice() -> None:
    conv = Convolution(1, 14, 14, 256, 256, (3, 3), padding=(1, 1, 1, 1))
    for kernels in ALL:
        packing = Packing(256, kernels.word, halo=(1, 1, 1, 1))
        task = TiledTask(
            conv=conv, packing=packing, ending="truth", outputs=(("uint16", Packing(256, kernels.word)),)
        )
        found = task.candidates(kernels)
        default = kernels.tile_for_bits(conv)
        assert (found[0].pixels, found[0].lanes) == (default.pixels, default.lanes)
        assert len(set(found)) == len(found) > 50
        assert found == task.candidates(kernels)
        assert all(t.rows and t.together and t.word for t in found)  # nothing is left to the target


CONV = Convolution(1, 9, 9, 40, 64, (3, 3), padding=(1, 1, 1, 1))
TASK = TiledTask(
    conv=CONV,
    packing=Packing(40, 8, halo=(1, 1, 1, 1)),
    ending="truth",
    outputs=(("uint32", Packing(64, 32)),),
)
FLOAT = TiledTask(conv=CONV, outputs=(("float32", None),))


@pytest.mark.parametrize(
    ("task", "tile", "words"),
    [
        (TASK, Tile(pixels=4, lanes=30, quantum=16), "whole vectors"),
        (TASK, Tile(pixels=0, lanes=32, quantum=16), "whole vectors"),
        (TASK, Tile(pixels=4000, lanes=32, quantum=16), "larger"),
        (TASK, Tile(pixels=4, lanes=32, quantum=16, rows=2), "2 rows"),
        (TASK, Tile(pixels=4, lanes=32, quantum=16, rows=3), "3 rows"),
        (TASK, Tile(pixels=4, lanes=32, quantum=16, together=3), "3 activations"),
        (TASK, Tile(pixels=4, lanes=32, quantum=16, word=16), "words of 16 bits"),
        (TASK, Tile(pixels=4, lanes=16, quantum=16), "16 lanes do not fill"),
        (FLOAT, Tile(pixels=4, lanes=16, quantum=16, word=8), "not packed"),
        (FLOAT, Tile(pixels=4, lanes=16, quantum=16, abreast=2), "count bits"),
        (TASK, Tile(pixels=4, lanes=32, quantum=16, abreast=3), "3 vectors"),
    ],
)
def test_what_cannot_be_is_refused(task: TiledTask, tile: Tile, words: str) -> None:
    assert words in (task.refusal(tile) or "")


def alone(channels: int, word: int) -> TiledTask:
    """One pixel of so many channels: as many products."""
    conv = Convolution(1, 1, 1, channels, 8)
    return TiledTask(conv=conv, packing=Packing(channels, word), outputs=(("int32", None),))


TILE = Tile(pixels=4, lanes=32, quantum=16)
NARROW = Tile(pixels=1, lanes=8, quantum=8)


@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        (TASK, replace(TILE, lanes=1024), replace(TILE, lanes=1040)),  # 64 vectors of 64 lanes
        (TASK, replace(TILE, unroll=16), replace(TILE, unroll=17)),
        (TASK, replace(TILE, unroll=1), replace(TILE, unroll=0)),
        (TASK, replace(TILE, pixels=9, rows=9), replace(TILE, pixels=9, rows=0)),
        (TASK, replace(TILE, pixels=9, rows=3), replace(TILE, pixels=8, rows=3)),
        (TASK, replace(TILE, together=16), replace(TILE, together=32)),
        (TASK, TILE, replace(TILE, lanes=48)),  # two words of 32 bits, or one and a half
        # A run is three taps of 64 bits: 12 words of 16, of which 4 at a time and not 8, nor 3.
        (alone(64, 16), replace(NARROW, depth=4), replace(NARROW, depth=8)),
        (alone(96, 16), replace(NARROW, depth=2), replace(NARROW, depth=3)),
        (alone(64, 16), replace(NARROW, depth=2, word=32), replace(NARROW, depth=2, word=8)),
        # A count in 16 bits, and one that might not fit.
        (alone(65535, 16), NARROW, None),
        (alone(65536, 32), NARROW, replace(NARROW, word=16)),
        (alone(65536, 8), NARROW, replace(NARROW, word=16)),
    ],
)
def test_the_last_tile_that_can_be_and_the_first_that_cannot(
    task: TiledTask, right: Tile, wrong: Tile | None
) -> None:
    assert task.refusal(right) is None
    assert wrong is None or task.refusal(wrong)


@pytest.mark.parametrize("products", [65535, 65536])
def test_as_many_products_as_a_lane_of_16_bits_can_count(host, products: int) -> None:
    """All of them differ, so that the count is the largest there is; one more is not counted in 16 bits."""
    task = alone(products, 32)
    tiles = [Tile(pixels=1, lanes=8, quantum=8, word=word) for word in (8, 16, 32)]
    assert [task.refusal(tile) is None for tile in tiles] == [True, products == 65535, True]
    for tile in tiles:
        if task.refusal(tile) is None:
            kernel = binary_convolution(
                task.conv, task.packing, tile, host.kernels, plain((1, 1, 1, 8), "int32"), ending="dot"
            )
            ones = pack_weights(np.ones((8, 1, 1, products), bool), 32).view(f"uint{tile.word}")
            zeros = pack(np.zeros((1, 1, 1, products), bool), task.packing)
            [found] = host.call(kernel, [zeros, lay_out(ones, 1, tile)], [((1, 1, 1, 8), "int32")])
            np.testing.assert_array_equal(found, -products)
