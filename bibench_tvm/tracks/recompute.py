"""Tables 2 and 3 of the BiBench paper, computed again from its other tables by `metrics.py`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bibench_tvm.tracks import metrics, paper
from bibench_tvm.tracks.deployment import IN_PAPER
from bibench_tvm.tracks.metrics import Figure, Metric, Pairs, Reading

SAME = 0.005 + 1e-9  # half of the last digit that is printed

# The names of trainers for those of the paper.
NAMES = {name: name.lower().replace("-", "").replace("+", "p") for name in paper.ALGORITHMS}

EQUATIONS = {
    "learning_task": "2",
    "neural_architecture": "3",
    "corruption_robustness": "4, 5",
    "training_consumption": "6",
    "hardware_inference": "9",
    "speedup": "7",
    "compression": "7",
    "OM_comp": "8",
}
NOT_DEPLOYABLE = "No library of the paper could deploy it."
PRINTED_ONLY = "It is printed in table 3 alone, and taken from there."
_PRINTED_ONLY = (("training_consumption", "time_cost"), ("hardware_inference", "compression"))
_NOT_ROUNDED = "It follows from its parts, which are not rounded here."
Column = tuple[str, str]
# Why a number of a column is another than what is printed.
_NO_COUNTS = (
    "The paper gives no counts. These are products with their additions, of all layers but the first and the "
    "last in bits, and products with a scale for each element of their outputs: "
)
NOTES: dict[Reading, dict[Column, str]] = {
    "paper": {
        ("theoretical_complexity", "speedup"): (
            f"{_NO_COUNTS}none for BNN, and two for XNOR, XNOR++ and ReActNet. Within 0.8 %."
        ),
        ("theoretical_complexity", "compression"): (
            "With o + h + w scales for each layer, as the algorithm has them, 5,674. What is printed would "
            "take 7,243 to 7,918."
        ),
        ("theoretical_complexity", "OM_comp"): (
            "It follows from the speed-up and the compression above. For XNOR++ what is printed does not "
            "follow from the printed parts either: they give 12.72."
        ),
        ("hardware_inference", "speedup"): (
            "No selection of tables 17 to 20 and no mean was found that gives what is printed. This is the "
            "mean of Larq's ratios over all 174 rows."
        ),
        ("hardware_inference", "OM_infer"): (
            "It follows from the speed-up above; from the printed parts it is equal."
        ),
    }
}
NOTES["equation"] = NOTES["paper"] | {
    ("learning_task", "VOC07"): "SSD300 counts, which the paper leaves out of VOC07 and has among the CNNs.",
    ("learning_task", "ShapeNet"): (
        "The row Overall, which is the metric of the task; the paper takes the mean of it and of the 16 "
        "categories."
    ),
    ("learning_task", "OM_task"): _NOT_ROUNDED,
    ("neural_architecture", "CNNs"): "Without PointNet, which the paper counts among the CNNs and the MLPs.",
    ("neural_architecture", "MLPs"): (
        "With ShapeNet, whose network is a PointNet and which is in no class of the paper."
    ),
    ("neural_architecture", "OM_arch"): _NOT_ROUNDED,
    ("training_consumption", "OM_train"): _NOT_ROUNDED,
    ("theoretical_complexity", "speedup"): (
        f"{_NO_COUNTS}none for BNN, and two for XNOR and XNOR++. ReActNet's threshold is a comparison, as "
        "the sign is, and no product. Within 0.9 %."
    ),
    ("theoretical_complexity", "compression"): (
        "What each network has: thresholds count, XNOR++ has o + h + w scales a layer and DoReFa one. The "
        "paper seems to count a scale for each output channel of DoReFa, and no thresholds."
    ),
    ("theoretical_complexity", "OM_comp"): _NOT_ROUNDED,
}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A number of table 2 or 3, as it is printed and as it comes out here; None: not deployable."""

    track: str
    metric: str
    equation: str
    algorithm: str
    printed: Figure
    recomputed: Figure
    entries: int  # that went into it
    missing: tuple[str, ...]
    equal: bool | None  # None where there is nothing to compare
    note: str  # why it is not equal

    @property
    def difference(self) -> Figure:
        if self.equal is None or self.printed is None or self.recomputed is None:
            return None
        return self.recomputed - self.printed


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many numbers of an equation come out as they are printed."""

    equation: str
    track: str
    metric: str  # empty: all of the track
    equal: int
    of: int


def recompute(reading: Reading = "paper") -> tuple[Comparison, ...]:
    """All numbers of tables 2 and 3.

    reading: "paper" is the one that gives most of what is printed, overall metrics from their parts as they
    are printed, with two decimals; "equation" is what the equations and the text say. Needs PyTorch.
    """
    printed = {(row.track, row.metric, row.algorithm): row.value for row in paper.read(paper.Summary)}
    ours: dict[tuple[str, str, str], Metric] = {}
    for algorithm in paper.ALGORITHMS:
        given = {column: _one(printed[*column, algorithm]) for column in _PRINTED_ONLY}
        for track, columns in _tracks(algorithm, reading, given).items():
            ours |= {(track, metric, algorithm): value for metric, value in columns.items()}
    return tuple(_compare(key, value, ours[key], reading) for key, value in printed.items())


def count(comparisons: tuple[Comparison, ...]) -> tuple[Count, ...]:
    """By the equations: all columns of a track together where its numbers come out, else each by itself."""
    groups: dict[tuple[str, str, str], list[bool]] = {}
    for one in comparisons:
        if one.equal is not None:
            apart = one.track in ("training_consumption", "theoretical_complexity", "hardware_inference")
            group = one.equation, one.track, one.metric if apart else ""
            groups.setdefault(group, []).append(one.equal)
    return tuple(
        Count(equation=equation, track=track, metric=metric, equal=sum(found), of=len(found))
        for (equation, track, metric), found in groups.items()
    )


def _compare(key: tuple[str, str, str], printed: Figure, ours: Metric, reading: Reading) -> Comparison:
    track, metric, algorithm = key
    equal: bool | None = None
    if printed is None:
        note = NOT_DEPLOYABLE
    elif (track, metric) in _PRINTED_ONLY:
        note = PRINTED_ONLY
    else:
        equal = ours.value is not None and abs(ours.value - printed) <= SAME
        note = "" if equal else NOTES[reading].get((track, metric), "")
    return Comparison(
        track=track,
        metric=metric,
        equation=EQUATIONS.get(track) or EQUATIONS[metric],
        algorithm=algorithm,
        printed=printed,
        recomputed=ours.value,
        entries=ours.count,
        missing=ours.missing,
        equal=equal,
        note=note,
    )


def _tracks(algorithm: str, reading: Reading, given: Mapping[Column, Metric]) -> dict[str, dict[str, Metric]]:
    """Track -> metric -> value, of tables 2 and 3."""

    def part(metric: Metric) -> Metric:
        value = metric.value if reading == "equation" or metric.value is None else round(metric.value, 2)
        return msgspec.structs.replace(metric, value=value)

    def parts(columns: Mapping[str, Metric]) -> dict[str, Metric]:
        return {name: part(value) for name, value in columns.items()}

    tasks = {name: metrics.relative_accuracy(pairs) for name, pairs in _tasks(algorithm, reading).items()}
    classes = {name: metrics.relative_accuracy(pairs) for name, pairs in _classes(algorithm, reading).items()}
    cnn, transformer, mlp = parts(classes).values()
    corrupted = {"CIFAR10-C": metrics.relative_gap(_gaps(algorithm))}
    time = given["training_consumption", "time_cost"]
    sensitivity = metrics.sensitivity(_runs(algorithm))
    compression, speedup = _complexity(algorithm, reading)
    storage = given["hardware_inference", "compression"]
    faster = metrics.saving(_times(algorithm))
    return {
        "learning_task": {**tasks, "OM_task": metrics.om_task(parts(tasks))},
        "neural_architecture": {**classes, "OM_arch": metrics.om_arch(cnn, transformer, mlp)},
        "corruption_robustness": {**corrupted, "OM_corr": metrics.om_robust(parts(corrupted))},
        "training_consumption": {
            "sensitivity": sensitivity,
            "time_cost": time,
            "OM_train": metrics.om_train(part(sensitivity), time),
        },
        "theoretical_complexity": {
            "speedup": speedup,
            "compression": compression,
            "OM_comp": metrics.om_comp(
                {"ResNet18": part(compression).value}, {"ResNet18": part(speedup).value}
            ),
        },
        "hardware_inference": {
            "speedup": faster,
            "compression": storage,
            "OM_infer": metrics.om_infer(part(faster), storage),
        },
    }


def _pairs(figures: Mapping[tuple[str, str], float], algorithm: str) -> Pairs:
    """From (entry, algorithm) -> figure."""
    entries = dict.fromkeys(entry for entry, _ in figures)
    return {name: (figures.get((name, algorithm)), figures.get((name, paper.FP32))) for name in entries}


def _vision(algorithm: str) -> Pairs:
    """Of table 10, by "task architecture"."""
    rows = paper.read(paper.Vision)
    return _pairs({(f"{row.task} {row.architecture}", row.algorithm): row.value for row in rows}, algorithm)


def _parts(algorithm: str) -> Pairs:
    """Of table 11, by category."""
    rows = paper.read(paper.Parts)
    return _pairs({(row.category, row.algorithm): row.value for row in rows}, algorithm)


def _language(algorithm: str, task: str) -> Pairs:
    """Of table 12, by "subtask architecture"."""
    rows = [row for row in paper.read(paper.Language) if row.task == task]
    figures = {(f"{row.subtask} {row.architecture}".strip(), row.algorithm): row.value for row in rows}
    return _pairs(figures, algorithm)


def _tasks(algorithm: str, reading: Reading) -> dict[str, Pairs]:
    """Of equation 2."""
    vision, categories = _vision(algorithm), _parts(algorithm)
    tasks: dict[str, Pairs] = {
        task: {name: pair for name, pair in vision.items() if name.startswith(f"{task} ")}
        for task in ("CIFAR10", "ImageNet", "VOC07", "COCO17", "ModelNet40")
    }
    if reading == "paper":
        tasks["VOC07"] = {name: pair for name, pair in tasks["VOC07"].items() if "SSD300" not in name}
        tasks["ShapeNet"] = categories
    else:
        tasks["ShapeNet"] = {"Overall": categories["Overall"]}
    return tasks | {
        "GLUE": _language(algorithm, "GLUE"),
        "SpeechCom": _language(algorithm, "SpeechCommands"),
    }


def _classes(algorithm: str, reading: Reading) -> dict[str, Pairs]:
    """Of equation 3: CNNs, Transformers, MLPs."""
    vision = _vision(algorithm)
    clouds = {name: pair for name, pair in vision.items() if "PointNet" in name}
    cnns = vision if reading == "paper" else {n: pair for n, pair in vision.items() if n not in clouds}
    segmentation = {} if reading == "paper" else {"ShapeNet PointNet": _parts(algorithm)["Overall"]}
    return {
        "CNNs": cnns,
        "Transformers": _language(algorithm, "GLUE"),
        "MLPs": {**clouds, **segmentation, **_language(algorithm, "SpeechCommands")},
    }


def _gaps(algorithm: str) -> Pairs:
    """Of equation 5: ResNet18 on the sets of CIFAR10-C, by corruption and severity."""
    rows = paper.read(paper.Corruption)
    clean = {row.algorithm: row.accuracy for row in rows if row.severity == 0}
    gaps = {
        (f"{row.corruption} {row.severity}", row.algorithm): metrics.generalization_gap(
            clean[row.algorithm], row.accuracy
        )
        for row in rows
        if row.severity
    }
    return _pairs({entry: gap for entry, gap in gaps.items() if gap is not None}, algorithm)


def _runs(algorithm: str) -> Pairs:
    """Of equation 6: ResNet18 on CIFAR10, eight settings by five seeds."""
    runs = {
        (f"{row.optimizer} {row.learning_rate:g} {row.scheduler} {row.quantity}", row.algorithm): row.value
        for row in paper.read(paper.Training)
        if row.quantity.startswith("run")
    }
    return _pairs(runs, algorithm)


def _complexity(algorithm: str, reading: Reading) -> tuple[Metric, Metric]:
    """Compression and speed-up of equation 7, of ResNet-18 for ImageNet."""
    from bibench_tvm.tracks.complexity import complexity_of_name

    found = complexity_of_name("resnet18", NAMES[algorithm], reading=reading)
    return _one(found.compression), _one(found.speedup)


def _one(value: Figure) -> Metric:
    return Metric(value, value is not None)


def _times(algorithm: str) -> Pairs:
    """Of equation 9: Larq on every device, for what it can deploy: the same for all but ReActNet."""
    deployable = IN_PAPER[NAMES[algorithm]]

    def time(row: paper.Inference) -> Figure:
        return (row.larq_react_ms if algorithm == "ReActNet" else row.larq_bnn_ms) if deployable else None

    return {
        f"{row.hardware} {row.architecture}, {row.threads} threads": (time(row), row.larq_fp32_ms)
        for row in paper.read(paper.Inference)
    }
