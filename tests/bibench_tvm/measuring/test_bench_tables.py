"""What `bench` prints, against tables that are written out."""

import io
from typing import Any

import pytest
from rich.console import Console

from bibench_tvm.measuring.tables import cost, show


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00123, "ms", "0.0012"),
        (0.99994, "ms", "0.9999"),
        (1.0, "ms", "1.000"),
        (1234.5678, "ms", "1,234.568"),
        (99_999, "instructions", "99,999"),
        (100_000, "instructions", "0.100 M"),
        (1_234_567_890, "instructions", "1,234.568 M"),
    ],
)
def test_a_cost_in_a_cell(value: float, unit: str, text: str) -> None:
    assert cost(value, unit) == text


def layer(name: str, binarized: bool, macs: int, cost: float) -> dict[str, Any]:
    return {"name": name, "binarized": binarized, "macs": macs, "cost": cost}


def timed(**changes: Any) -> dict[str, Any]:
    """A board with a clock."""
    return {
        "artifact": "build",
        "model": "resnet20",
        "target": "rpi4b",
        "board": {"key": "pi", "cpu": "cortex-a72"},
        "threads": 2,
        "emulated": False,
        "unit": "ms",
        "latency_ms": {"median": 1.5, "p90": 2.25, "spread": 0.125},
        "instructions": None,
        "layers": [layer("stem", False, 1_234_567, 0.5), layer("body.0", True, 2_000_000, 0.25)],
        "other_kernels": [{"kernel": "pool", "cost": 0.0625}],
        "layers_sum": 0.8125,
        "peak_memory_bytes": 3 * 2**20 + 2**19,
        "activation_bytes": 65536,
        "size_bytes": 1234567,
        "accuracy": {"top1": 0.9125, "images": 400},
        "warnings": [],
        **changes,
    }


def emulated(**changes: Any) -> dict[str, Any]:
    """A board that counts instructions; of the same network, with another kernel."""
    return timed(
        board={"key": "qemu", "cpu": "cortex-a53"},
        threads=1,
        emulated=True,
        unit="instructions",
        latency_ms=None,
        instructions={"median": 4_500_000},
        layers=[layer("stem", False, 1_234_567, 4_000_000), layer("body.0", True, 2_000_000, 99_000)],
        other_kernels=[{"kernel": "copy", "cost": 10}],
        layers_sum=4_099_010,
        accuracy=None,
        **changes,
    )


@pytest.fixture
def printed() -> Any:
    """The lines of a report of these results, with one space for many."""

    def printed(*results: dict[str, Any], width: int = 200) -> list[str]:
        console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
        show({"results": list(results)}, console)
        return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]

    return printed


def test_two_boards_side_by_side(printed: Any) -> None:
    assert printed(timed(), emulated()) == [
        "resnet20",
        "pi qemu, emulated",
        "processor cortex-a72, 2 thread(s) cortex-a53, 1 thread(s)",
        "target rpi4b rpi4b",
        "latency, median 1.500 ms -",
        "latency, 90th percentile 2.250 ms -",
        "latency, spread 12.5% -",
        "instructions executed - 4.500 M",
        "memory of the process, peak 3.5 MiB 3.5 MiB",
        "memory for activations 65,536 bytes 65,536 bytes",
        "artifact 1,234,567 bytes 1,234,567 bytes",
        "accuracy 91.25% of 400 -",
        "Layer by layer",
        "layer binary MMAC pi, ms qemu, emulated, instructions",
        "stem no 1.23 0.5000 4.000 M",
        "body.0 yes 2.00 0.2500 99,000",
        "pool 0.0625 -",
        "copy - 10",
        "all of these 0.8125 4.099 M",
        "the network 1.500 4.500 M",
    ]


def test_other_layers_have_a_table_of_their_own_and_artifacts_are_told_apart(printed: Any) -> None:
    other = timed(
        artifact="elsewhere",
        model="vgg_small",
        layers=[layer("head", True, 10_000, 0.125), layer("tail", True, 10_000, 0.125)],
        warnings=["The board is hot [80]."],
    )
    lines = printed(timed(), other)
    assert lines[:2] == ["resnet20, vgg_small", "build on pi elsewhere on pi"]
    assert lines.count("Layer by layer") == 2
    assert "layer binary MMAC build on pi, ms" not in lines[:12]  # each table has its own boards
    assert "head yes 0.01 0.1250" in lines
    assert not any("instructions" in line for line in lines)
    assert lines[-1] == "pi: The board is hot [80]."


def time(cost: float, ratio: float | None, unit: str = "ms") -> dict[str, Any]:
    return {"cost": cost, "ratio": ratio, "unit": unit}


def test_others_as_multiples_of_ours(printed: Any) -> None:
    against = {
        "ours": "bibench_tvm",
        "unit": "ms",
        "layers": [
            {
                "name": "body.0",
                "like": ["body.1", "body.2"],
                "in_place": 0.25,
                "times": {"bibench_tvm": time(0.5, 1.0), "ONNX": time(1.25, 2.5), "TVM": time(3, None)},
                "failed": {},
            },
            {
                "name": "head",
                "like": [],
                "in_place": None,
                "times": {"bibench_tvm": time(0.125, 1.0)},
                "failed": {"TVM": "It has no such layer."},
            },
        ],
        "network": {"times": {"bibench_tvm": time(1.5, 1.0)}, "failed": {"TVM": "It has no such layer."}},
        "left_out": ["The network in ONNX: it is not there."],
    }
    lines = printed(timed(against=against))
    table = [
        "On pi: ms of ours, and how many times that others take",
        "layer, + more like it in the network alone ONNX TVM",
        "body.0 +2 0.2500 0.5000 2.50x 3.000 ms",
        "head 0.1250 - failed",
        "the network 1.500 - failed",
    ]
    assert [line for line in lines if line in table] == table
    assert lines[-1] == "The network in ONNX: it is not there."
    assert "head, the network: TVM failed: It has no such layer." in lines
