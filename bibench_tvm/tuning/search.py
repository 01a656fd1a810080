"""The search: which candidate is tried next, on which of a network's kernels, and which becomes a record.

Trial 0 of each task is its default. Then come batches, each for the task with the largest share of the
network's cost for the square of its trials, as the gain of a trial falls faster than one in their number. In
a batch are the tiles that the cost model thinks best, of those that differ from the best so far in one thing
and of those from anywhere, and one that it did not choose. At the end the best of each task is measured
against the default in turns, and is kept where it is better by more than a margin.

What the seed and the costs decide, nothing else does: with the trials of an earlier run at hand the search
takes the same way, and measures only what was not measured then.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tvm import relax, tirx

from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.measuring.peers.bitserial import bitserial_function, unsupported
from bibench_tvm.measuring.turns import ratios
from bibench_tvm.tuning.boards import Boards, Job
from bibench_tvm.tuning.builder import Builder, BuildFailed
from bibench_tvm.tuning.cost_model import Candidate, CostModel
from bibench_tvm.tuning.places import Place
from bibench_tvm.tuning.trials import LIBRARY, Confirmation, Measured, Trials
from relay_passes.ir.rewrite import constant_value, dtype_of, is_constant, shape_of
from relay_passes.kernels.kernel import LaidOut, Tunable
from rpc.built_kernel import BuiltKernel
from schedules.records.digest import digest
from schedules.records.kernel_task import KernelTask, Work
from schedules.records.kinds.tiled import TiledTask
from schedules.records.records import Record
from schedules.targets.kernel_target import Choice

BATCH = 8
_RANKED = 96  # candidates that the model looks at for a batch, besides those beside the best
_RANDOM, _BESIDE = 0.12, 0.5  # shares of a batch: not the model's choice; its choice beside the best
_FINALISTS = 3
MARGIN = 0.02  # of time, for noise; counts of instructions are exact
_ROUNDS, _BURST_MS = 25, 4
_TURNS = 8


@dataclass
class Subject:
    """One task, and `calls` kernels of the network that it stands for. pool: its candidates, the default
    first."""

    tunable: Tunable[Any]
    calls: int
    pool: list[Choice]
    found: dict[Choice, Measured] = field(default_factory=dict)
    library: Measured = field(default_factory=lambda: Measured(None))
    yardstick: BuiltKernel | None = None  # the default

    @property
    def task(self) -> KernelTask[Any]:
        return self.tunable.task

    @property
    def default_choice(self) -> Choice:
        return self.pool[0]

    @property
    def default(self) -> Measured:
        return self.found[self.default_choice]

    @property
    def finalists(self) -> list[Choice]:
        """The default and what is better, the best first. More instructions are never better, whatever a
        model says of the cycles of one loop."""
        limit, most = self.default.cost, self.default.instructions
        if limit is None:
            return [self.default_choice]
        better = [
            (m.cost, place, tile)
            for place, (tile, m) in enumerate(self.found.items())
            if m.cost is not None
            and (tile == self.default_choice or m.cost < limit)
            and (most is None or (m.instructions is not None and m.instructions <= most))
        ]
        return [tile for _, _, tile in sorted(better, key=lambda b: b[:2])]

    @property
    def best(self) -> Measured:
        return self.found[self.finalists[0]]


def subjects_of(tunables: Sequence[Tunable[Any]], target: CompileTarget) -> list[Subject]:
    """Kernels with a choice, each once, in the order of the network."""
    found: dict[str, Subject] = {}
    for tunable in tunables:
        if known := found.get(tunable.task.key):
            known.calls += 1
            continue
        pool = tunable.task.candidates(target.kernels)
        if len(pool) > 1:
            found[tunable.task.key] = Subject(tunable, 1, pool)
    return list(found.values())


@dataclass(frozen=True)
class Progress:
    """After each batch. trials: so far; seconds_left: of this search, None before anything was measured."""

    subject: Subject
    trials: int
    seconds_left: float | None


class Search:
    """Raises NoBoard where no board is left; whatever was measured is kept."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        target: CompileTarget,
        trials: Trials,
        boards: Boards,
        builder: Builder,
        *,
        seed: int,
        report: Callable[[Progress], None],
    ):
        self._subjects, self._target, self._trials = subjects, target, trials
        self._boards, self._builder, self._seed, self._report = boards, builder, seed, report
        self._model = CostModel(target.tvm, target.kernels)
        self.done = self.measured = 0

    def run(self, budget: int) -> None:
        """At most `budget` trials, those of earlier runs included."""
        self._budget, self._start = budget, time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            for subject in self._subjects[:budget]:
                self._try(subject, [subject.default_choice])
                self._measure_library(subject)
                self._tell(subject)
            waiting = [s for s in self._subjects[:budget] if s.default.cost is not None]
            while self.done < budget and waiting:
                subject = max(waiting, key=lambda s: s.calls * (s.best.cost or 0) / len(s.found) ** 2)
                chosen = self._choose(subject, min(BATCH, budget - self.done))
                if not chosen:
                    waiting.remove(subject)
                    continue
                self._try(subject, chosen)
                self._tell(subject)

    def compare(self) -> dict[str, Record]:
        """The records of these subjects: of each the finalist that beats the default by most."""
        found: dict[str, Record] = {}
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            for subject in self._subjects:
                if not subject.found:
                    continue
                self._trials.forget_stale_comparisons(subject.task)
                better = subject.finalists[: subject.finalists.index(subject.default_choice)]
                results = [(self._compare(subject, tile), tile) for tile in better[:_FINALISTS]]
                good = [(r.cost / r.default_cost, i) for i, (r, _) in enumerate(results) if r.better]
                if good:
                    result, tile = results[min(good)[1]]
                    found[subject.task.key] = Record(
                        tile,
                        result.cost,
                        result.default_cost,
                        digest(subject.task, tile, self._target.kernels),
                    )
        return found

    def _tell(self, subject: Subject) -> None:
        took = time.monotonic() - self._start
        left = took / self.measured * (self._budget - self.done) if self.measured else None
        self._report(Progress(subject, self.done, left))

    def _choose(self, subject: Subject, count: int) -> list[Choice]:
        generator = random.Random(f"{self._seed} {len(subject.found)} {subject.task.key}")
        left = [tile for tile in subject.pool if tile not in subject.found]
        anywhere = generator.sample(left, min(len(left), _RANKED))
        beside = [t for t in left if any(_differences(t, best) == 1 for best in subject.finalists[:2])]
        chosen = anywhere[: round(_RANDOM * count)]
        for ranked, wanted in ((beside, round(_BESIDE * count)), (anywhere, count)):
            scores = self._model.score([self._candidate(subject, tile) for tile in ranked])
            order = [ranked[i] for i in np.argsort(-scores, kind="stable")]
            chosen += [tile for tile in order if tile not in chosen][: min(wanted, count - len(chosen))]
        return chosen

    def _candidate(self, subject: Subject, tile: Choice) -> Candidate:
        return Candidate(subject.task, tile, subject.tunable.make(tile)[0])

    def _try(self, subject: Subject, tiles: Sequence[Choice]) -> None:
        """Measure what was not measured before, and let the model learn from all."""
        known = {tile: self._trials.find(subject.task, tile) for tile in tiles}
        if subject.yardstick is None and None in known.values() and subject.found:
            self._built(subject, subject.default_choice)  # of an earlier run, to compare with
        jobs: dict[Choice, tuple[Job, float]] = {}
        for tile in tiles:
            if known[tile] is None:
                made = self._built(subject, tile)
                if isinstance(made, str):
                    known[tile] = Measured(None, made)
                    self._trials.keep(subject.task, tile, Measured(None, made))
                else:
                    jobs[tile] = made
        done = self._boards.run([job for job, _ in jobs.values()])
        for tile, (_, weight) in jobs.items():
            measured = _measured(next(done), weight)
            self._trials.keep(subject.task, tile, measured)
            known[tile] = measured
            self.measured += 1
        subject.found |= {tile: m for tile, m in known.items() if m is not None}
        self.done += len(tiles)
        made_of = [self._candidate(subject, tile) for tile in tiles]
        self._model.learn(made_of, [subject.found[tile].cost for tile in tiles])

    def _built(self, subject: Subject, tile: Choice) -> tuple[Job, float] | str:
        """The job that measures a candidate, and the modelled cycles of an instruction; or why not."""
        try:
            kernel, arguments = subject.tunable.make(tile)
            mine, weight = self._build(kernel, arguments, subject.task.work)
        except (BuildFailed, ValueError) as error:
            return str(error)
        if tile == subject.default_choice:
            subject.yardstick = mine
        yardstick = subject.yardstick if tile != subject.default_choice else None

        def work(here: Place) -> tuple[float, bool, str]:
            if here.emulated or yardstick is None:
                (own,), _ = here.measure([mine], turns=_TURNS, burst_ms=2)
                cost = min(own)
            else:
                # In turns with the default, since what else a board does changes from minute to minute.
                both, _ = here.measure([yardstick, mine], turns=_TURNS, burst_ms=2)
                his, my = map(min, both)
                cost = my / his * (subject.default.cost or his)
            return cost, here.emulated, here.conditions()

        return Job(work), weight

    def _build(
        self, kernel: tirx.PrimFunc, arguments: Sequence[relax.Expr | LaidOut], work: Work
    ) -> tuple[BuiltKernel, float]:
        """With the modelled cycles of an instruction. Raises BuildFailed."""
        handle, name = tempfile.mkstemp(prefix="kernel_", suffix=self._boards.compiled, dir=self._folder)
        os.close(handle)
        weight = self._builder.build(kernel, Path(name), work)
        return BuiltKernel(Path(name), _arrays(kernel, arguments)), weight

    def _measure_library(self, subject: Subject) -> None:
        """TVM's own kernel for this layer, to be shown beside ours."""
        known = self._trials.find(subject.task, LIBRARY)
        task = subject.task
        if known is None and isinstance(task, TiledTask) and task.packing and not unsupported(task.conv):
            kernel = bitserial_function(task.conv)
            try:
                built, weight = self._build(kernel, [], task.work)
            except BuildFailed as error:
                known = Measured(None, str(error))
            else:

                def work(here: Place) -> tuple[float, bool, str]:
                    (seconds,), _ = here.measure([built], turns=3, burst_ms=1)
                    return min(seconds), here.emulated, here.conditions()

                known = _measured(next(self._boards.run([Job(work)])), weight)
            self._trials.keep(task, LIBRARY, known)
        subject.library = known or Measured(None, "TVM has none for this layer.")

    def _compare(self, subject: Subject, tile: Choice) -> Confirmation:
        if known := self._trials.find_comparison(subject.task, tile):
            return known
        exact = subject.task.exact
        pair = []
        for one in (subject.default_choice, tile):
            pair.append(self._build(*subject.tunable.make(one), subject.task.work)[0])
        outputs = len(subject.task.outputs)
        costs = [subject.default.cost or 0, subject.found[tile].cost or 0]

        def work(here: Place) -> Confirmation:
            times, results = here.measure(pair, turns=_ROUNDS, burst_ms=_BURST_MS, outputs=outputs)
            if not all(_equal(a, b, exact=exact) for a, b in zip(*results, strict=True)):
                return Confirmation(costs[1], costs[0], False, "It computes something else than the default.")
            if here.emulated:
                return Confirmation(costs[1], costs[0], costs[1] < costs[0])
            theirs, ours = times
            ratio, best = ratios(ours, theirs)["median"], min(ours) / min(theirs)
            better = max(ratio, best) < 1 - MARGIN
            why = "" if better else f"The ratio is {ratio:.3f}."
            return Confirmation(min(ours), min(theirs), better, why)

        job = next(self._boards.run([Job(work)]))
        found = job.result or Confirmation(costs[1], costs[0], False, job.reason)
        self._trials.keep_comparison(subject.task, tile, found)
        return found


def _measured(job: Job, weight: float) -> Measured:
    if job.result is None:
        return Measured(None, job.reason, board=job.board)
    seconds, emulated, conditions = job.result
    if emulated:
        instructions = round(seconds * 1e9)
        return Measured(instructions * weight, "", instructions, job.board, conditions)
    return Measured(seconds, "", None, job.board, conditions)


def _differences(one: Choice, other: Choice) -> int:
    """In how many things they differ; the width of vectors follows from that of a lane."""
    apart = [name for name in vars(one) if getattr(one, name) != getattr(other, name)]
    return len(apart) - ("quantum" in apart and ("word" in apart or "lanes" in apart))


def _arrays(kernel: tirx.PrimFunc, arguments: Sequence[relax.Expr | LaidOut]) -> list[np.ndarray]:
    """Constants as they are; for what else is read the same noise for every choice, and 0 in the outputs."""
    generator = np.random.default_rng(0)
    arrays = []
    for i, buffer in enumerate(kernel.params):
        shape, dtype = [int(e) for e in buffer.shape], str(buffer.dtype)
        given = arguments[i] if i < len(arguments) else None
        if given is None:
            arrays.append(np.zeros(shape, dtype))
        elif isinstance(given, LaidOut):
            plain = _noise(generator, shape_of(given.variable), dtype_of(given.variable))
            arrays.append(given.arrange(plain))
        else:
            constant = is_constant(given)
            arrays.append(constant_value(given) if constant else _noise(generator, shape, dtype))
    return arrays


def _noise(generator: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray:
    if "float" in dtype:
        return generator.standard_normal(shape).astype(dtype)
    most = 2 if dtype in ("bool", "int32") else np.iinfo(dtype).max + 1
    return generator.integers(0, most, shape).astype(dtype)


def _equal(ours: np.ndarray, theirs: np.ndarray, *, exact: bool) -> bool:
    """Sums of floats round differently where they are added in another order; a sign of one may flip."""
    if ours.dtype.kind == "f":
        return np.allclose(ours, theirs, rtol=1e-3, atol=1e-3, equal_nan=True)
    return bool((ours != theirs).mean() <= (0 if exact else 0.01))
