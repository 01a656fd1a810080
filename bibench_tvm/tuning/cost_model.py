"""MetaSchedule's XGBoost cost model, over our candidates.

To the features that MetaSchedule extracts from each store of a kernel come those of the choice itself: what a
tile costs depends on registers and rests, which loops do not show.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule, meta_schedule
from tvm.s_tir.meta_schedule.cost_model.xgb_model import XGBConfig, XGBModel
from tvm.s_tir.meta_schedule.runner import RunnerResult

from schedules.parts.tiling import rows_together, split_row
from schedules.parts.weights import blocks_of_group
from schedules.records.choices import CHOICES
from schedules.records.kernel_task import KernelTask
from schedules.records.kinds.tiled import TiledTask
from schedules.targets.kernel_target import Choice, KernelTarget, Tile

_PER_STORE = 164  # features that MetaSchedule extracts
_MOST_FEATURES = 26  # of a choice
_TILE = "bibench.tile"  # the attribute by which the extractor finds a kernel's own features


@dataclass(frozen=True)
class Candidate:
    task: KernelTask[Any]
    tile: Choice
    kernel: tirx.PrimFunc


class CostModel:
    """score: higher is better; without any trial behind it, all alike."""

    def __init__(self, target: tvm.target.Target, kernels: KernelTarget):
        logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.WARNING)
        self._target, self._kernels = target, kernels
        self._contexts: dict[str, Any] = {}
        # One thread, since the order of additions decides the last digit, and that which candidate is tried.
        self._model = XGBModel(
            extractor=_extractor(), config=XGBConfig(seed=43, nthread=1, max_depth=6), num_warmup_samples=1
        )

    def learn(self, candidates: Sequence[Candidate], costs: Sequence[float | None]) -> None:
        """The candidates are of one task, the first ever of a task being its default. None: it failed."""
        results = [
            RunnerResult([cost], None) if cost is not None else RunnerResult(None, "it failed")
            for cost in costs
        ]
        self._model.update(self._context(candidates[0]), self._measured(candidates), results)

    def score(self, candidates: Sequence[Candidate]) -> np.ndarray:
        if self._model.booster is None or not candidates:
            return np.zeros(len(candidates))
        return self._model.predict(self._context(candidates[0]), self._measured(candidates))

    def _context(self, candidate: Candidate) -> Any:
        """One for each task, whose trials are compared with each other only."""
        if candidate.task.key not in self._contexts:
            with _no_intrinsics():
                self._contexts[candidate.task.key] = meta_schedule.TuneContext(
                    mod=_module(candidate, self._kernels), target=self._target
                )
        return self._contexts[candidate.task.key]

    def _measured(self, candidates: Sequence[Candidate]) -> list[Any]:
        modules = [_module(candidate, self._kernels) for candidate in candidates]
        return [meta_schedule.MeasureCandidate(Schedule(module), []) for module in modules]


@contextlib.contextmanager
def _no_intrinsics() -> Iterator[None]:
    """A context imports TVM's tensor intrinsics: 500 scripts, 20 s to parse, of which we use none."""
    name = "tvm.s_tir.tensor_intrin"
    before = sys.modules.get(name)
    sys.modules[name] = before or types.ModuleType(name)
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]


def _module(candidate: Candidate, kernels: KernelTarget) -> tvm.IRModule:
    named = candidate.kernel.with_attr("global_symbol", "main")
    found = features(candidate.task, candidate.tile, kernels)
    return tvm.IRModule({"main": named.with_attr(_TILE, [float(f) for f in found])})


def features(task: KernelTask[Any], choice: Choice, kernels: KernelTarget) -> list[float]:
    """As many for every kind, since the kinds share a model: the kind, what is chosen, and zeros."""
    if isinstance(task, TiledTask) and isinstance(choice, Tile):
        own = tile_features(task, choice, kernels)
    else:
        own = [float(value or 0) for value in vars(choice).values()]
    return [float(list(CHOICES).index(task.kind)), *own, *[0.0] * (_MOST_FEATURES - len(own))]


def tile_features(task: TiledTask, tile: Tile, kernels: KernelTarget) -> list[float]:
    conv = task.conv
    word = tile.word or (task.packing.word if task.packing else 32)
    rows = tile.rows or rows_together(conv, tile.pixels)
    larger, columns, smaller = split_row(conv.out_width, max(1, tile.pixels // rows))
    tiles = larger + smaller
    blocks = blocks_of_group(conv.out_channels // conv.groups, tile.lanes, tile.quantum)
    computed = sum(block.width for block in blocks)
    # Along the channels, each output of a pixel has a vector.
    vectors = math.ceil(tile.lanes * word / kernels.vector_bits) if tile.depth == 1 else tile.quantum
    together = tile.together or kernels.together
    held = tile.pixels * vectors + vectors + (tile.pixels if together > 1 else 1)
    run = conv.kernel[1] * conv.channels // conv.groups / word
    return [
        float(task.packing is not None),
        math.log2(conv.products),
        math.log2(conv.out_width),
        math.log2(conv.out_channels),
        float(conv.strides[0]),
        tile.pixels,
        columns,
        rows,
        vectors,
        tile.pixels * vectors,
        held,
        max(0, held - kernels.registers),
        word,
        tile.depth,
        together,
        tile.unroll,
        float(tile.abreast or 0),
        float(tile.blocks_outside),
        len(blocks),
        computed / (conv.out_channels // conv.groups),
        conv.out_width / (tiles * columns),
        smaller / tiles,
        (tile.pixels + vectors) / (tile.pixels * vectors),
        run,
        run / (together * tile.unroll) % 1,
        math.log2(computed * conv.products * word / 8 / len(blocks) / 32 + 1),
    ]


def _extractor() -> Any:
    per_store = meta_schedule.feature_extractor.PerStoreFeature()

    @derived_object
    class WithTile(meta_schedule.feature_extractor.PyFeatureExtractor):
        def extract_from(self, context: Any, candidates: Any) -> list[Any]:
            found = [_stores(per_store, context, candidate) for candidate in candidates]
            return [_joined(s, c.sch.mod["main"]) for s, c in zip(found, candidates, strict=True)]

    return WithTile()


def _stores(extractor: Any, context: Any, candidate: Any) -> np.ndarray:
    """[stores, features]; none where MetaSchedule has none for loops whose end is the smaller of two, which
    it raises of by accident of the sizes."""
    try:
        (found,) = extractor.extract_from(context, [candidate])
    except RuntimeError:
        return np.zeros((0, _PER_STORE))
    return found.numpy()


def _joined(stores: np.ndarray, kernel: tirx.PrimFunc) -> Any:
    """A row for each store, and the tile's features in each of them; one row where no store is found."""
    stores = stores if len(stores) else np.zeros((1, _PER_STORE))
    tile = np.asarray([float(f) for f in kernel.attrs[_TILE]])
    return tvm.runtime.tensor(np.hstack([stores, np.tile(tile, (len(stores), 1))]))
