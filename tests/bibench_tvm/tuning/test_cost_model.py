"""What the cost model sees of a tile, in examples worked out by hand, and that it learns to rank tiles."""

from math import log2

import numpy as np
import pytest
from tvm import tirx

from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.tuning.cost_model import Candidate, CostModel, tile_features
from schedules.geometry import Convolution
from schedules.kernels.convolution import binary_convolution
from schedules.parts.bits import Packing
from schedules.parts.epilogue import plain
from schedules.records.kinds.tiled import TiledTask
from schedules.targets import Tile
from schedules.targets.aarch64_neon import AARCH64_NEON

NEON = AARCH64_NEON  # 32 registers of 128 bits, 8 activations at a time
CONV = Convolution(1, 14, 14, 256, 77, (3, 3), padding=(1, 1, 1, 1))
PACKED = TiledTask(
    conv=CONV, packing=Packing(256, 16, halo=(1, 1, 1, 1)), ending="truth", outputs=(("bool", None),)
)
FLOAT = TiledTask(conv=Convolution(1, 7, 7, 8, 16), outputs=(("float32", None),))


@pytest.mark.parametrize(
    ("task", "tile", "features"),
    [
        (  # a row of 14 as 5 + 5 + 4; 77 outputs as 32 + 32 + 16; a lane is 16 bits, so 4 vectors
            PACKED,
            Tile(pixels=5, lanes=32, quantum=8, unroll=2, abreast=2),
            [1, log2(2304), log2(14), log2(77), 1]
            + [5, 5, 1, 4, 20, 20 + 4 + 5, 0, 16, 1, 8, 2, 2, 0]
            + [3, 80 / 77, 14 / 15, 1 / 3, 9 / 20, 48, 0, log2(80 * 2304 * 2 / 3 / 32 + 1)],
        ),
        (  # along the channels, each of 4 outputs of a pixel has a vector; rows of 14 as 7 times 2
            PACKED,
            Tile(
                pixels=4,
                lanes=32,
                quantum=4,
                depth=8,
                rows=2,
                together=1,
                word=32,
                unroll=5,
                blocks_outside=True,
            ),
            [1, log2(2304), log2(14), log2(77), 1]
            + [4, 2, 2, 4, 16, 16 + 4 + 1, 0, 32, 8, 1, 5, 0, 1]
            + [3, 80 / 77, 1, 0, 8 / 16, 24, 0.8, log2(80 * 2304 * 4 / 3 / 32 + 1)],
        ),
        (  # 8 pixels by 16 floats do not fit the registers: 32 sums, 4 weights and an activation
            FLOAT,
            Tile(pixels=8, lanes=16, quantum=4, rows=2, together=1),
            [0, 3, log2(7), 4, 1]
            + [8, 4, 2, 4, 32, 32 + 4 + 1, 5, 32, 1, 1, 1, 0, 0]
            + [1, 1, 7 / 8, 1 / 2, 12 / 32, 0.25, 0.25, log2(16 * 8 * 4 / 32 + 1)],
        ),
    ],
)
def test_the_features_of_a_tile(task: TiledTask, tile: Tile, features: list[float]) -> None:
    np.testing.assert_allclose(tile_features(task, tile, NEON), features, rtol=1e-12)


@pytest.fixture(scope="module")
def candidates() -> list[Candidate]:
    """One kernel with tiles of 1 to 14 pixels."""
    conv = Convolution(1, 14, 14, 32, 32)
    task = TiledTask(conv=conv, packing=Packing(32, 16), outputs=(("int32", None),))

    def kernel(tile: Tile) -> tirx.PrimFunc:
        return binary_convolution(
            conv, Packing(32, 16), tile, NEON, plain(conv.out_shape, "int32"), ending="dot"
        )

    return [
        Candidate(task, tile, kernel(tile))
        for tile in (Tile(pixels=n, lanes=16, quantum=8) for n in range(1, 15))
    ]


def test_what_was_slow_or_failed_is_ranked_behind_what_was_fast(candidates: list[Candidate]) -> None:
    """In either direction of the same feature, so that nothing but the costs can tell it."""
    assert not CostModel(resolve_target("rpi4b").tvm, NEON).score(candidates).any()
    for direction in (1, -1):
        model = CostModel(resolve_target("rpi4b").tvm, NEON)
        ordered = candidates[::direction]
        model.learn(ordered[::2], [None, *(1e-3 * (8 - i) for i in range(1, len(ordered[::2])))])
        scores = model.score(ordered)
        assert scores.shape == (14,)
        # The first failed, and each next is faster; of those in between nothing was measured.
        assert scores[:4].max() < scores[-4:].min()
        assert np.corrcoef(np.arange(14), scores)[0, 1] > 0.8
    assert model.score([]).shape == (0,)


def test_two_models_that_learn_the_same_agree_to_the_digit(candidates: list[Candidate]) -> None:
    costs = [1e-3 * (1 + i % 5) for i in range(14)]
    scores = []
    for _ in range(2):
        model = CostModel(resolve_target("rpi4b").tvm, NEON)
        model.learn(candidates[:7], costs[:7])
        model.learn(candidates[7:], costs[7:])
        scores.append(model.score(candidates))
    np.testing.assert_array_equal(*scores)
