"""The equations against examples that are worked out by hand, and what holds for any figures."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibench_tvm.tracks import metrics
from bibench_tvm.tracks.metrics import Metric

figures = st.floats(0.5, 100)
some = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(figures, figures), min_size=1)
ratios = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(1, 200), min_size=1)
MEANS = (metrics.relative_accuracy, metrics.relative_gap, metrics.time_cost, metrics.saving)


def parts(values: dict[str, float]) -> dict[str, Metric]:
    return {name: Metric(value, 1) for name, value in values.items()}


def test_equation_2() -> None:
    cifar = metrics.relative_accuracy({"resnet18": (50, 100), "vgg_small": (72, 90)})
    assert cifar == Metric(65, 2)
    whole = metrics.om_task({"cifar10": cifar, "glue": Metric(100, 1)})
    assert whole.value == pytest.approx(math.sqrt((65**2 + 100**2) / 2)) and whole.count == 2


def test_equation_3() -> None:
    found = metrics.om_arch(cnn=Metric(60, 4), transformer=Metric(80, 3), mlp=Metric(100, 2))
    assert found.value == pytest.approx(math.sqrt((3600 + 6400 + 10000) / 3)) and found.count == 3


def test_equations_4_and_5() -> None:
    gaps = {
        "fog 1": (metrics.generalization_gap(85, 65), metrics.generalization_gap(90, 80)),  # 10 of 20
        "fog 2": (metrics.generalization_gap(85, 65), metrics.generalization_gap(90, 60)),  # 30 of 20
    }
    gap = metrics.relative_gap(gaps)
    assert gap == Metric(100, 2)
    assert metrics.om_robust({"cifar10_c": gap}) == Metric(100, 1)
    assert metrics.om_robust({"a": Metric(30, 1), "b": Metric(40, 1)}).value == pytest.approx(math.sqrt(1250))
    assert metrics.generalization_gap(85, None) is None


def test_equation_6() -> None:
    runs = {"seed 0": (80, 90), "seed 1": (84, 92), "seed 2": (88, 94)}  # deviations of 4 and 2
    spread, time = metrics.sensitivity(runs), metrics.time_cost({"resnet18": (40, 10)})
    assert spread == Metric(50, 3) and time == Metric(25, 1)
    assert metrics.om_train(spread, time).value == pytest.approx(math.sqrt((2500 + 625) / 2))


def test_equations_7_and_8() -> None:
    assert metrics.compression_ratio(320, binary=256, floats=64) == 320 / (8 + 64)
    assert metrics.compression_ratio(320, binary=320, floats=0) == 32
    assert metrics.speedup_ratio(6400, binary=3200, floats=3200) == 6400 / (50 + 3200)
    assert metrics.speedup_ratio(6400, binary=6400, floats=0) == 64
    assert metrics.compression_ratio(320, None, 64) is None
    found = metrics.om_comp({"resnet18": 13, "resnet20": 15}, {"resnet18": 6, "resnet20": 10})
    assert found.value == pytest.approx(math.sqrt((14**2 + 8**2) / 2))


def test_equation_9() -> None:
    time = metrics.saving({"rpi4b": (10, 50), "rpi3b+": (20, 60)})
    assert time == Metric(4, 2)
    assert metrics.om_infer(time, Metric(3, 1)).value == pytest.approx(math.sqrt((16 + 9) / 2))


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("absent", [(None, 5.0), (5.0, None), (math.nan, 5.0), (5.0, math.inf)])
def test_what_is_missing_is_named_and_no_zero(mean: Any, absent: tuple[Any, Any]) -> None:
    there = {"a": (50.0, 100.0), "b": (20.0, 80.0)}
    found = mean({**there, "c": absent})
    assert found.value == mean(there).value and found.count == 2 and found.missing == ("c",)
    assert mean({"c": absent}) == Metric(None, 0, ("c",))
    assert mean({}) == Metric(None, 0)


def test_a_ratio_to_nothing_is_missing() -> None:
    assert metrics.relative_accuracy({"cola": (0.0, 0.0)}) == Metric(None, 0, ("cola",))
    assert metrics.relative_accuracy({"cola": (0.0, 50.0)}) == Metric(0, 1)  # a network that fails is a zero
    assert metrics.relative_gap({"fog": (0.0, 3.0)}).missing == ("fog",)


def test_what_parts_lack_is_named() -> None:
    tasks = {"cifar10": Metric(80, 3, ("vgg_small",)), "glue": Metric(None, 0, ("rte", "qqp"))}
    assert metrics.om_task(tasks) == Metric(80, 1, ("cifar10: vgg_small", "glue"))
    assert metrics.om_infer(Metric(None, 0), Metric(None, 0)).value is None


def test_sensitivity_compares_the_same_runs() -> None:
    runs = {"0": (80, 90), "1": (84, 92), "2": (88, 94)}
    found = metrics.sensitivity({**runs, "3": (None, 10), "4": (10, None)})
    assert found == Metric(50, 3, ("3", "4"))
    assert metrics.sensitivity({"0": (80, 90), "1": (None, 1)}) == Metric(None, 1, ("1",))
    assert metrics.sensitivity({"0": (80, 90), "1": (80, 91)}).value is None  # no deviation to divide by


@given(some, st.floats(0.01, 100))
def test_the_unit_does_not_matter(pairs: dict[str, tuple[float, float]], unit: float) -> None:
    scaled = {name: (a * unit, b * unit) for name, (a, b) in pairs.items()}
    for mean in MEANS:
        assert mean(scaled).value == pytest.approx(mean(pairs).value)


@given(some, st.floats(1.01, 2))
def test_better_is_more(pairs: dict[str, tuple[float, float]], better: float) -> None:
    """More accuracy; a smaller gap, time and storage."""
    name, (binary, floating) = next(iter(pairs.items()))
    more, less = {**pairs, name: (binary * better, floating)}, {**pairs, name: (binary / better, floating)}
    assert metrics.relative_accuracy(more).value > metrics.relative_accuracy(pairs).value
    for mean in MEANS[1:]:
        assert mean(less).value > mean(pairs).value


@given(ratios, st.floats(1.01, 2))
def test_the_quadratic_mean(values: dict[str, float], better: float) -> None:
    found = metrics.om_task(parts(values)).value
    assert found is not None
    slack = 1e-9 * max(values.values())
    assert sum(values.values()) / len(values) - slack <= found <= max(values.values()) + slack
    assert metrics.om_task(parts(dict(reversed(values.items())))).value == pytest.approx(found)
    name = next(iter(values))
    assert metrics.om_task(parts({**values, name: values[name] * better})).value > found
    assert metrics.om_task(parts({k: v * better for k, v in values.items()})).value == pytest.approx(
        found * better
    )


@given(st.integers(1, 10**9), st.floats(0, 1), st.integers(0, 10**6))
def test_ratios_of_equation_7(whole: int, share: float, extra: int) -> None:
    """Between a network that stays as it is and one all of bits; scales cost."""
    binary = int(whole * share)
    for ratio, most in ((metrics.compression_ratio, 32), (metrics.speedup_ratio, 64)):
        found = ratio(whole, binary, whole - binary)
        assert found is not None and 1 - 1e-9 <= found <= most + 1e-9
        assert ratio(whole, binary, whole - binary + extra) <= found
