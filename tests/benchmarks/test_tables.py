"""Goals, and the tables of `benchmarks.peers` and `benchmarks.arm`, against what is written out."""

from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks import arm, goals, peers
from benchmarks.contestants import ALONE
from benchmarks.goals import Goal
from benchmarks.tables import promised, tell
from benchmarks.timing import Timing
from bibench_tvm.cli import console


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (Goal(2, 3), 1.99, "missed"),
        (Goal(2, 3), 2, "must"),
        (Goal(2, 3), 2.99, "must"),
        (Goal(2, 3), 3, "aim"),
        (Goal(33, 29, lower=True), 33.01, "missed"),
        (Goal(33, 29, lower=True), 33, "must"),
        (Goal(33, 29, lower=True), 29, "aim"),
        (Goal(0.4, 0.4), 0.4, "aim"),
    ],
)
def test_what_a_value_reaches(goal: Goal, value: float, reached: str) -> None:
    assert goal.met(value) == reached
    promise = goal.promised(value)
    assert promise == {"must": goal.must, "aim": goal.aim, "reached": reached}
    must, aim, cell = promised(promise)
    assert (must, aim, cell.plain) == (f"{goal.must:g}", f"{goal.aim:g}", reached)
    assert cell.style == {"aim": "green", "must": "yellow", "missed": "red"}[reached]


def test_no_goal_is_harder_to_reach_in_part_than_in_full() -> None:
    every = [*(g for of in goals.RATIOS.values() for g in of.values()), *goals.INSTRUCTIONS.values()]
    every += [
        *goals.CYCLES.values(),
        goals.ROOF,
        goals.TWO_THREADS,
        goals.SHARE_OF_C,
        goals.STEM_INSTRUCTIONS,
    ]
    for goal in every:
        assert goal.met(goal.must) != "missed" and goal.met(goal.aim) == "aim"


def test_where_nothing_was_promised_cells_are_empty() -> None:
    must, aim, cell = promised({"median": 1})
    assert (must, aim, cell.plain) == ("", "", "")


def timing(*seconds: float) -> Timing:
    """On the wall twice as long as on the processor."""
    return Timing(list(seconds), [2 * s for s in seconds])


def figures(
    name: str, threads: int, timings: dict[str, Timing], kernels: str = "x86_avx512"
) -> dict[str, dict[str, Any]]:
    report: dict[str, Any] = {"figures": [], "kernel_target": kernels}
    peers._figures(peers.Measurement(threads, 3), name, timings, report)
    return {figure.pop("figure"): figure for figure in report["figures"]}


def test_figures_are_ratios_within_a_round_with_their_goals() -> None:
    """Only the better of two int8 is held against the goal; a network alone, against ours alone."""
    found = figures(
        "resnet18",
        1,
        {
            "ours": timing(1, 10, 1),
            f"ours{ALONE}": timing(0.5, 5, 0.5),
            "OpenVINO int8": timing(2.5, 25, 2.5),
            "ONNX Runtime int8": timing(2, 20, 2),
            f"ONNX Runtime int8{ALONE}": timing(2, 20, 2),
            "ONNX Runtime fp32": timing(8, 80, 8),
            "PyTorch fp32": timing(9, 90, 9),
            "ours on 2 threads": timing(0.5, 6.25, 0.5),
        },
    )
    medians = {title: (figure["median"], figure.get("reached")) for title, figure in found.items()}
    assert medians == {
        "resnet18: OpenVINO int8 / ours": (2.5, None),
        "resnet18: ONNX Runtime int8 / ours": (2, "must"),
        f"resnet18: ONNX Runtime int8 / ours{ALONE}": (4, None),
        "resnet18: ONNX Runtime fp32 / ours": (8, "must"),
        "resnet18: PyTorch fp32 / ours": (9, None),
        "resnet18: ours on 1 thread / on 2, wall time": (2, "aim"),
    }


def test_a_layer_is_compared_with_channels_last_too_where_there_is_a_goal() -> None:
    timings = {"ours": timing(1), "ours, channels last": timing(0.5)}
    timings |= {"OpenVINO binary": timing(1.7), "PyTorch fp32": timing(30)}
    found = figures("B", 1, timings)
    medians = {title: (figure["median"], figure.get("reached")) for title, figure in found.items()}
    assert medians == {
        "B: OpenVINO binary / ours": (1.7, "must"),
        "B: OpenVINO binary / ours, channels last": (3.4, "aim"),
        "B: PyTorch fp32 / ours": (30, None),
    }


def test_on_more_threads_it_is_wall_time() -> None:
    """The processor says 4, the wall 2."""
    timings = {"ours": Timing([1], [1]), "PyTorch fp32": Timing([4], [2])}
    assert figures("A", 1, timings)["A: PyTorch fp32 / ours"]["median"] == 4
    assert figures("A", 2, timings)["A: PyTorch fp32 / ours"]["median"] == 2


def test_by_avx2_a_layer_is_held_against_goals_of_its_own() -> None:
    both = {"ours": timing(1, 1, 1), goals.BINARY: timing(1.9, 1.9, 1.9)}
    found = {kernels: figures("C", 1, both, kernels) for kernels in ("x86_avx2", "x86_avx512")}
    assert [found[k][f"C: {goals.BINARY} / ours"]["must"] for k in found] == [1.8, 1.5]


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The cells of what was printed, without its frames."""
    out, err = capsys.readouterr()
    assert not err
    rows = [line.replace("┃", "│").split("│") for line in out.splitlines()]
    return [[cell.strip() for cell in row[1:-1]] if len(row) > 1 else [row[0].strip()] for row in rows]


def test_the_tables_of_peers(capsys: pytest.CaptureFixture[str]) -> None:
    both = {"median": 1.5, "low": 1, "high": 2}
    record = {"cpu_ms": both, "wall_ms": {**both, "median": 3.25}, "difference": 0.00025}
    tell(
        {},
        peers._tables(
            {
                "threads": 2,
                "repeats": 7,
                "figures": [
                    {"figure": "A: X / ours", **both, **Goal(1, 2).promised(1.5)},
                    {"figure": "B", **both},
                ],
                "layers": {"A": {"times": {"ours": record}, "failed": {"X": "It fell over."}}},
                "networks": {"resnet18": {"failed": {"ours": "It is wrong."}}},
            }
        ),
        as_json=False,
    )
    printed = lines(capsys)
    for row in (
        ["Ratios of wall time, 2 thread(s), 7 rounds"],
        ["A: X / ours", "1.50", "1.00 to 2.00", "1", "2", "must"],
        ["B", "1.50", "1.00 to 2.00", "", "", ""],
        ["A", "ours", "1.5000", "3.2500", "2.5e-04"],
        ["A", "X", "failed", "", "It fell over."],
        ["resnet18", "ours", "failed", "", "It is wrong."],
    ):
        assert row in printed


def test_what_others_print_keeps_its_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Console(width=80)
    monkeypatch.setattr(console, "stdout", shared)
    tell({}, [Table("x" * 110)], as_json=False)
    assert "x" * 110 in capsys.readouterr().out
    assert shared.width == 80


def test_the_tables_of_arm(capsys: pytest.CaptureFixture[str]) -> None:
    counted = {"bits to float": 20, "bits to bits": 19.5, "float to bits": 2.125, "popcounts": 7.8125}
    modelled = {"macs_per_cycle": 80.04, "instructions": 26, "macs": 2048, "share_of_layer": 0.934}
    tell(
        {},
        arm._tables(
            {
                "counted_on": "rpi4b",
                "instructions_per_1000_macs": {
                    "B": {**counted, "layer": 22.125, **goals.INSTRUCTIONS["B"].promised(22.125)},
                    "stem": {"layer": 400, **goals.STEM_INSTRUCTIONS.promised(400)},
                },
                "macs_per_cycle": {
                    "B": {
                        "cortex-a72": {**modelled, **goals.CYCLES["cortex-a72"].promised(80.04)},
                        "cortex-a55": modelled,
                    }
                },
            }
        ),
        as_json=False,
    )
    printed = lines(capsys)
    for row in (
        ["B", "20.00", "19.50", "2.12", "7.81", "22.12", "30", "27.5", "aim"],
        ["stem", "", "", "", "", "400.00", "356", "356", "missed"],
        ["B", "cortex-a72", "80.0", "26", "2048", "93%", "80", "85", "must"],
        ["B", "cortex-a55", "80.0", "26", "2048", "93%", "", "", ""],
    ):
        assert row in printed
