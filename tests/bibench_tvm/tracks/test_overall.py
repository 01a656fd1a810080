"""The overall metrics of results that are written out here, by hand."""

from typing import Any

import pytest

from bibench_tvm.tracks.overall import overall
from bibench_tvm.tracks.results import Figure, Key, Result


def result(track: Any, task: str, arch: str, algorithm: str, seed: int | None = 0, **more: Any) -> Result:
    fields = {
        name: more.pop(name) for name in ("corruption", "settings", "device", "threads") if name in more
    }
    return Result(
        key=Key(track=track, task=task, arch=arch, algorithm=algorithm, seed=seed, profile="p", **fields),
        figures=[Figure(name=name, value=value, unit="1", kind="measured") for name, value in more.items()],
        command=[],
        versions={},
        commit="",
        machine={},
        conditions={},
        ended="",
        seconds=0,
    )


def test_learning_tasks_and_architectures() -> None:
    accuracies = [
        ("fashion_mnist", "resnet20", {"fp32": 0.8, "bnn": 0.4}),
        ("fashion_mnist", "vgg_small", {"fp32": 0.5, "bnn": 0.5}),
        ("standin_text", "bert_tiny4@small", {"fp32": 0.5, "bnn": 0.3}),
        ("standin_speech", "dfsmn", {"fp32": 0.9}),
    ]
    results = [
        result(track, task, arch, algorithm, accuracy=value)
        for track in ("learning_task", "architecture")
        for task, arch, by in accuracies
        for algorithm, value in by.items()
    ]
    tasks, kinds = overall(results)
    assert (tasks.track, tasks.algorithm) == ("learning_task", "bnn")
    assert tasks.parts["fashion_mnist"].value == pytest.approx(75)
    assert tasks.parts["standin_text"].value == pytest.approx(60)
    assert tasks.overall.value == pytest.approx(((75**2 + 60**2) / 2) ** 0.5)
    assert tasks.overall.missing == ("standin_speech",)
    assert {name: part.value for name, part in kinds.parts.items()} == pytest.approx(
        {"CNNs": 75, "Transformers": 60, "MLPs": None}
    )


def test_corruptions_are_compared_with_the_clean_accuracy_of_the_same_network() -> None:
    clean = {"fp32": 0.9, "bnn": 0.8}
    corrupted = {"fp32": {"fog/1": 0.7, "fog/2": 0.5}, "bnn": {"fog/1": 0.7, "fog/2": 0.4}}
    results = [result("learning_task", "fashion_mnist", "resnet20", a, accuracy=v) for a, v in clean.items()]
    for algorithm, by in corrupted.items():
        figures = {f"{split}: accuracy": value for split, value in by.items()} | {"accuracy": 0.1}
        own = {"corruption": "standin_corruptions", **figures}
        results.append(result("corruption", "fashion_mnist", "resnet20", algorithm, **own))
    (_, row) = overall(results)
    assert row.overall.value == pytest.approx(100 * (0.2 / 0.1 + 0.4 / 0.4) / 2)


def test_training() -> None:
    settings = [{"lr": "0.1"}, {"lr": "0.01"}, {"lr": "1"}]
    results = [
        result("training", "fashion_mnist", "resnet20", name, settings=of, accuracy=value)
        for name, values in (("fp32", (0.7, 0.8, 0.9)), ("bnn", (0.5, 0.7, 0.9)))
        for of, value in zip(settings, values, strict=True)
    ]
    results += [
        result("training", "fashion_mnist", "resnet20", name, device="host", threads=1, train_seconds=seconds)
        for name, seconds in (("fp32", 10.0), ("bnn", 20.0))
    ]
    (row,) = overall(results)
    assert row.parts["sensitivity"].value == pytest.approx(50)
    assert row.parts["time"].value == pytest.approx(50)
    assert row.overall.missing == ()


def test_each_device_is_an_entry_of_its_own() -> None:
    results = [
        result("inference", "t", "resnet20", name, device=device, threads=threads, latency=latency, size=8.0)
        for name, device, threads, latency in (
            *(("fp32", "host", 1, 8.0), ("fp32", "host", 2, 6.0), ("fp32", "pi", 1, 90.0)),
            *(("bnn", "host", 1, 2.0), ("bnn", "host", 2, 3.0), ("bnn", "pi", 1, 10.0)),
        )
    ]
    (row,) = overall(results)
    assert row.parts["speed-up"].value == pytest.approx((4 + 2 + 9) / 3)


def test_a_structure_is_no_network() -> None:
    assert overall([result("architecture", "structure", "cnn", "bnn", None, error=0.6)]) == []


def test_complexity_and_inference() -> None:
    results = [
        result("complexity", "", "resnet18", "fp32", None, compression=1.0, speedup=1.0),
        result("complexity", "", "resnet18", "bnn", None, compression=10.0, speedup=20.0),
        result("complexity", "", "resnet20", "bnn", None, compression=20.0),
        result("inference", "fashion_mnist", "resnet18", "fp32", latency=8.0, size=30.0),
        result("inference", "fashion_mnist", "resnet18", "bnn", latency=2.0, size=10.0),
    ]
    complexity, inference = overall(results)
    assert {name: part.value for name, part in complexity.parts.items()} == {"compression": 15, "speedup": 20}
    assert complexity.overall.missing == ("speed-up: resnet20",)
    assert {name: part.value for name, part in inference.parts.items()} == {"speed-up": 4, "compression": 3}
    assert inference.overall.value == pytest.approx(((16 + 9) / 2) ** 0.5)
