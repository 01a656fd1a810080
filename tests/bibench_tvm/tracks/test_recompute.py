"""Tables 2 and 3 from the other tables of the paper: which numbers come out, and that each that does not is
explained."""

import re
from collections.abc import Callable

import pytest

from bibench_tvm.tracks import paper, recompute
from bibench_tvm.tracks.metrics import READINGS
from bibench_tvm.tracks.recompute import Comparison, count

COUNTS = {
    ("2", ""): (72, 72),
    ("3", ""): (32, 32),
    ("4, 5", ""): (16, 16),
    ("6", "sensitivity"): (8, 8),
    ("6", "OM_train"): (8, 8),
    ("7", "speedup"): (4, 8),
    ("7", "compression"): (7, 8),
    ("8", "OM_comp"): (4, 8),
    ("9", "speedup"): (0, 6),
    ("9", "OM_infer"): (0, 6),
}
# Largest difference of each column that does not come out everywhere.
LARGEST = {
    ("theoretical_complexity", "speedup"): 0.091,
    ("theoretical_complexity", "compression"): 0.028,
    ("theoretical_complexity", "OM_comp"): 0.044,
    ("hardware_inference", "speedup"): 0.172,
    ("hardware_inference", "OM_infer"): 0.033,
}


@pytest.fixture(scope="module")
def compared() -> tuple[Comparison, ...]:
    return recompute.recompute()


def test_the_counts(compared: tuple[Comparison, ...]) -> None:
    assert {(group.equation, group.metric): (group.equal, group.of) for group in count(compared)} == COUNTS


def test_the_differences(compared: tuple[Comparison, ...]) -> None:
    assert len(compared) == 192
    largest: dict[tuple[str, str], float] = {}
    for one in compared:
        if one.equal is False:
            assert one.note and one.difference is not None
            key = one.track, one.metric
            largest[key] = max(largest.get(key, 0), abs(one.difference))
    assert largest == pytest.approx(LARGEST, abs=0.0006)


def test_what_cannot_be_compared(compared: tuple[Comparison, ...]) -> None:
    """It is not counted, and named."""
    idle = [one for one in compared if one.equal is None]
    undeployed = [one for one in idle if one.printed is None]
    assert {one.algorithm for one in undeployed} == {"XNOR", "XNOR++"} and len(undeployed) == 6
    assert all(one.recomputed is None and one.note == recompute.NOT_DEPLOYABLE for one in undeployed)
    assert len(idle) - 6 == 14 and all(
        one.note == recompute.PRINTED_ONLY and one.recomputed == one.printed
        for one in idle
        if one not in undeployed
    )
    [without, _] = [one for one in undeployed if one.metric == "speedup"]
    assert without.entries == 0 and len(without.missing) == 174


def test_by_the_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    """PointNet is no CNN: these are worked out from table 10 by hand."""
    monkeypatch.setattr(recompute, "_complexity", lambda *_: (recompute._one(1), recompute._one(1)))
    found = {
        (one.metric, one.algorithm): one for one in recompute.recompute("equation") if one.printed is not None
    }
    cnns = [round(found["CNNs", name].recomputed, 2) for name in paper.ALGORITHMS]
    assert cnns == [77.58, 81.22, 81.39, 82.97, 77.38, 84.65, 80.60, 84.33]
    assert round(found["VOC07", "BNN"].recomputed, 2) == 44.36  # with SSD300
    assert round(found["GLUE", "BNN"].recomputed, 2) == 49.75  # as printed
    assert all(one.note for one in found.values() if one.equal is False)


def test_each_reading_explains_what_the_other_has() -> None:
    assert set(recompute.NOTES) == set(READINGS)
    assert set(recompute.NOTES["paper"]) <= set(recompute.NOTES["equation"])


@pytest.mark.parametrize("kind", paper.Row.__subclasses__(), ids=lambda kind: kind.__name__)
def test_the_tables_are_whole(kind: type[paper.Row]) -> None:
    rows = {
        "Summary": 192,
        "Technique": 8,
        "StructureError": 51,
        "RobustnessIndicator": 9,
        "FloatCorruption": 97,
        "Vision": 90,
        "Parts": 153,
        "Language": 261,
        "Corruption": 873,
        "Training": 504,
        "Inference": 174,
        "OtherCompression": 52,
    }
    assert len(paper.read(kind)) == rows[kind.__name__]


def test_means_of_the_paper() -> None:
    """What it prints beside the runs follows from them: no cell was read wrongly."""
    settings: dict[tuple, dict[str, float]] = {}
    for row in paper.read(paper.Training):
        settings.setdefault((row.algorithm, row.optimizer, row.learning_rate, row.scheduler), {})[
            row.quantity
        ] = row.value
    assert len(settings) == 72
    for found in settings.values():
        runs = [found[f"run{i}"] for i in range(5)]
        assert sum(runs) / 5 == pytest.approx(found["mean"], abs=0.0051)


def test_a_damaged_table_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(paper.Row, frozen=True, kw_only=True):
        files = ("table08_robustness_indicators",)
        architecture: int
        algorithm: str
        value: float

    with pytest.raises(ValueError, match=r"^table08_robustness_indicators\.csv, line 2: "):
        paper.read(Wrong)

    class Other(paper.Row, frozen=True, kw_only=True):
        files = ("table08_robustness_indicators",)
        architecture: str

    with pytest.raises(ValueError, match=r"should have the columns architecture\.$"):
        paper.read(Other)


def test_the_command(
    invoke: Callable, compared: tuple[Comparison, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompute, "recompute", lambda reading: compared)
    done = invoke("tracks", "table", "--paper", "--json")
    assert done.code == 0 and done.json["reading"] == "paper"
    assert {(g["equation"], g["metric"]): (g["equal"], g["of"]) for g in done.json["counts"]} == COUNTS
    assert len(done.json["numbers"]) == 192
    differing = [one for one in done.json["numbers"] if one["equal"] is False]
    assert len(differing) == 4 + 1 + 4 + 6 + 6 and all(one["note"] and one["difference"] for one in differing)
    shown = invoke("tracks", "table", "--paper").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"^speedup +12\.60 +12\.26 ", shown, re.M) and "12.51*" in shown and "82.19=" in shown
    assert "Equation 2, learning task: 72 of 72 as printed." in shown


def test_its_errors(invoke: Callable, command: Callable) -> None:
    done = invoke("tracks", "table", "--json")
    assert (done.code, done.json["error"][-20:]) == (2, " the paper, or both.")
    done = invoke("tracks", "table", "--paper", "--reading", "equatio")
    assert (done.code, done.stderr) == (2, "Error: There is no reading 'equatio'. Did you mean equation?\n")
    done = command("tracks")
    assert done.code == 2 and done.stderr.startswith("Error: Missing command.")
