"""What the report computes itself: intervals, fronts, marks, what the paper printed."""

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bibench_tvm.report.data import printed_overall, printed_score, read_data, samples, score
from bibench_tvm.report.figures.inference import front
from bibench_tvm.report.figures.style import COLOURS
from bibench_tvm.report.intervals import interval, quantile
from bibench_tvm.report.tables import duration, marks
from bibench_tvm.tracks.results import Key


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 1000])
def test_quantile(freedom: int) -> None:
    assert quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


def test_interval() -> None:
    values = [0.5, 0.7, 0.65, 0.61]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, statistics.fmean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.std == pytest.approx(statistics.stdev(values))
    one = interval([0.5])
    assert (one.mean, one.low, one.high, one.std, one.half) == (0.5, 0.5, 0.5, None, None)


def test_results_that_differ_in_their_seed_are_one_sample(everything: Path) -> None:
    data = read_data(everything)
    found = samples(data.of("learning_task"), score)
    counts = {(s.key.task, s.key.algorithm): s.interval.count for s in found}
    assert counts["fashion_mnist", "bnn"] == 3 and counts["cifar10", "bnn"] == 1
    assert len(found) == 27
    bnn = next(s for s in found if (s.key.task, s.key.algorithm) == ("fashion_mnist", "bnn"))
    own = [score(entry.result) for entry in bnn.entries]
    assert bnn.interval.mean == pytest.approx(statistics.fmean(own))  # type: ignore[type-var]
    assert [entry.key.seed for entry in bnn.entries] == [0, 1, 2]


points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12)


@given(points)
def test_front(given: list[tuple[int, int]]) -> None:
    """A point is on it where no other is as good in both, and better in one."""
    best = {(x, y) for x, y in given if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in given)}
    found = front([(float(x), float(y)) for x, y in given])
    assert set(found) == best and found == sorted(found)


def test_marks() -> None:
    assert marks({"a": 1.0, "b": 2.0, "c": None, "d": 2.0}) == {"a": "worst", "b": "best", "d": "best"}
    assert marks({"a": 1.0, "b": 2.0}, more_is_better=False) == {"a": "best", "b": "worst"}
    assert marks({"a": 1.0, "b": 1.0}) == {} == marks({"a": 1.0, "b": None})


def test_durations() -> None:
    assert [duration(s) for s in (0.0, 3.4e-5, 0.0123, 12.34, 4321.0)] == [
        *("0 µs", "34 µs", "12.3 ms", "12.3 s", "4,321 s"),
    ]


def test_what_the_paper_printed() -> None:
    def key(task: str, arch: str, algorithm: str) -> Key:
        return Key(track="learning_task", task=task, arch=arch, algorithm=algorithm, profile="paper")

    assert printed_score(key("cifar10", "resnet20", "bnn")) == 85.31
    assert printed_score(key("cifar10", "resnet20", "fp32")) == 91.99
    assert printed_score(key("cifar10", "resnet20@small", "bnn")) is None
    assert printed_score(key("glue/mnli_m", "bert_tiny4", "xnor")) == 41.20
    assert printed_score(key("cifar10", "vgg_small", "bnn")) is not None
    assert printed_score(key("speech_commands", "dfsmn", "bnn")) is not None
    assert printed_score(key("shapenet", "pointnet", "fda")) == 58.68
    assert printed_score(key("fashion_mnist", "resnet20", "bnn")) is None
    assert printed_overall("learning_task", "cifar10", "bnn") == 94.54
    assert printed_overall("training", "time", "bnn") is not None
    assert printed_overall("inference", "speed-up", "bnn") == 5.45
    assert printed_overall("inference", None, "xnor") is None


def test_colours_can_be_told_from_both_papers() -> None:
    """WCAG asks for a contrast of 3 for what is drawn."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in COLOURS:
        for paper in ("#ffffff", "#14171c"):
            light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, (colour, paper)
