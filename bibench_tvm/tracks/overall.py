"""The overall metrics of one's own results, by the equations; what is missing is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from bibench_tvm.tracks import metrics
from bibench_tvm.tracks.metrics import Metric, Pairs
from bibench_tvm.tracks.results import Key, Result, Track, grouped
from bibench_tvm.tracks.structure import TASK
from trainers.tasks import tasks

KINDS = {"bert": "Transformers", "pointnet": "MLPs", "fsmn": "MLPs", "dfsmn": "MLPs"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What an algorithm has in a track: its overall metric, with the parts that it is made of.

    Percent, or a factor in the tracks "complexity" and "inference".
    """

    track: Track
    algorithm: str
    overall: Metric
    parts: dict[str, Metric]

    @property
    def empty(self) -> list[str]:
        """The parts of which nobody has a result: kinds of networks that a profile has none of."""
        return [name for name, part in self.parts.items() if not (part.count or part.missing)]

    @property
    def missing(self) -> list[str]:
        """What one side of a comparison lacks; a part that is empty is not compared."""
        empty = self.empty
        return [name for name in self.overall.missing if name not in empty]


def kind_of(arch: str) -> str:
    """CNNs, Transformers or MLPs; `arch` may have its size, "bert_tiny4@small"."""
    return KINDS.get(arch.split("@")[0].split("_")[0], "CNNs")


def unknown_task(key: Key) -> str:
    """The task that is not known here, and with it the metric that the result is judged by; "" for none."""
    if key.track in ("complexity", "inference") or key.task == TASK:
        return ""
    named = (name for name in (key.task, key.corruption) if name)
    return next((name for name in named if name not in tasks.names()), "")


def overall(results: Sequence[Result]) -> list[Row]:
    """The rows of all tracks and algorithms that have results; fp32 is what they are compared with.

    The results are those of one profile; of a task that is not known here they are in no row.
    """
    results = [result for result in results if not unknown_task(result.key)]
    algorithms = sorted({result.key.algorithm for result in results} - {"fp32"})
    found = []
    for track, of in _TRACKS.items():
        own = [result for result in results if result.key.track == track and result.key.task != TASK]
        for algorithm in algorithms if own else []:
            total, parts = of(own, algorithm, results)
            found.append(Row(track=track, algorithm=algorithm, overall=total, parts=parts))
    return found


def _pairs(results: Iterable[Result], algorithm: str, figure: Callable[[Result], float | None]) -> Pairs:
    """By what else tells the results apart: the figure of the algorithm and that of the float network."""
    by_name: dict[str, dict[str, float | None]] = {}
    for result in results:
        by_name.setdefault(_name(result), {})[result.key.algorithm] = figure(result)
    return {name: (own.get(algorithm), own.get("fp32")) for name, own in by_name.items()}


def _name(result: Result) -> str:
    key = result.key
    settings = [f"{name}={value}" for name, value in key.settings.items()]
    seed = [] if key.seed is None else [f"seed={key.seed}"]
    place = [] if key.device is None else [f"{key.device} threads={key.threads} {key.library or ''}".strip()]
    return " ".join([part for part in (key.task, key.arch) if part] + settings + seed + place)


def _accuracy(result: Result) -> float | None:
    return result.figure(tasks[result.key.task].metric)


Parts = tuple[Metric, dict[str, Metric]]


def _learning_task(own: list[Result], algorithm: str, results: Sequence[Result]) -> Parts:
    """Equation 2; the nine of GLUE are one task."""
    parts = {
        task: metrics.relative_accuracy(_pairs(group, algorithm, _accuracy))
        for task, group in grouped(own, lambda result: result.key.task.split("/")[0]).items()
    }
    return metrics.om_task(parts), parts


def _architecture(own: list[Result], algorithm: str, results: Sequence[Result]) -> Parts:
    """Equation 3."""
    groups = grouped(own, lambda result: kind_of(result.key.arch))
    parts = {
        kind: metrics.relative_accuracy(_pairs(groups.get(kind, []), algorithm, _accuracy))
        for kind in ("CNNs", "Transformers", "MLPs")
    }
    return metrics.om_arch(*parts.values()), parts


def _corruption(own: list[Result], algorithm: str, results: Sequence[Result]) -> Parts:
    """Equations 4 and 5; the clean accuracies are those of the same networks in the learning task track."""
    clean = {
        (result.key.algorithm, _name(result)): _accuracy(result)
        for result in results
        if result.key.track == "learning_task"
    }
    parts = {}
    for task, group in grouped(own, lambda result: result.key.corruption or "").items():
        gaps: dict[str, dict[str, float | None]] = {}
        for result in group:
            before = clean.get((result.key.algorithm, _name(result)))
            for figure in result.figures:
                split, colon, metric = figure.name.partition(": ")
                if colon and metric == tasks[task].metric:
                    gap = metrics.generalization_gap(before, figure.value)
                    gaps.setdefault(f"{_name(result)} {split}", {})[result.key.algorithm] = gap
        pairs = {name: (both.get(algorithm), both.get("fp32")) for name, both in gaps.items()}
        parts[task] = metrics.relative_gap(pairs)
    return metrics.om_robust(parts), parts


def _training(own: list[Result], algorithm: str, results: Sequence[Result]) -> Parts:
    """Equation 6; the time is that of trainings that ran alone."""
    alone = [result for result in own if result.key.device]
    varied = [result for result in own if not result.key.device]
    sensitivity = metrics.sensitivity(_pairs(varied, algorithm, _accuracy))
    seconds = metrics.time_cost(_pairs(alone, algorithm, lambda result: result.figure("train_seconds")))
    return metrics.om_train(sensitivity, seconds), {"sensitivity": sensitivity, "time": seconds}


def _complexity(own: list[Result], algorithm: str, results: Sequence[Result]) -> Parts:
    """Equation 8."""
    mine = [result for result in own if result.key.algorithm == algorithm]
    ratios = {
        name: {result.key.arch: result.figure(name) for result in mine} for name in ("compression", "speedup")
    }
    parts = {name: metrics.mean(values) for name, values in ratios.items()}
    return metrics.om_comp(ratios["compression"], ratios["speedup"]), parts


def _inference(own: list[Result], algorithm: str, results: Sequence[Result]) -> Parts:
    """Equation 9."""
    speedup, compression = (
        metrics.saving(_pairs(own, algorithm, lambda result, name=name: result.figure(name)))  # type: ignore[misc]
        for name in ("latency", "size")
    )
    return metrics.om_infer(speedup, compression), {"speed-up": speedup, "compression": compression}


_TRACKS: dict[Track, Callable[[list[Result], str, Sequence[Result]], Parts]] = {
    "learning_task": _learning_task,
    "architecture": _architecture,
    "corruption": _corruption,
    "training": _training,
    "complexity": _complexity,
    "inference": _inference,
}
