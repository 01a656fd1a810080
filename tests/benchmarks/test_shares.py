"""Shares of the time, and of the roof, by kind of call."""

import pytest

from benchmarks.shares import Call, of_roof, shares
from bibench_tvm.artifact.manifest import LayerRecord
from schedules.geometry import Convolution


def layer(name: str, binarized: bool, macs: int, groups: int = 1) -> LayerRecord:
    conv = Convolution(1, 8, 8, 64, 64, (3, 3), groups=groups)
    kind = "binary" if binarized else "float32"
    return LayerRecord(
        name=name,
        op="conv2d",
        binarized=binarized,
        reason="",
        macs=macs,
        weight_bytes=1,
        notes="",
        geometry=conv,
        dtype=kind,
    )


def test_shares_of_the_time_and_of_the_roof() -> None:
    long = layer("long", True, 10_000)
    calls = [
        Call("pack", None, 1.0),
        Call("a", long, 20e-6),
        Call("b", long, 5e-6),
        Call("c", layer("short", True, 4_000), 20e-6),
        Call("d", layer("depthwise", True, 10_000, groups=64), 20e-6),
        Call("e", layer("stem", False, 10_000), 3 - 65e-6),
    ]
    assert shares(calls) == pytest.approx({"glue": 0.25, "binary": 65e-6 / 4, "float": (3 - 65e-6) / 4})
    assert of_roof(calls, rate=1e9) == pytest.approx({"long": 0.4})
