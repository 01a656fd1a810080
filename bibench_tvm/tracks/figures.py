"""From what a job printed to the figures and the layers of a result."""

from __future__ import annotations

from typing import Any

import msgspec

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.jobs.job import Outcome
from bibench_tvm.tracks.results import Figure, Key, Kind, Layer
from bibench_tvm.tracks.structure import TASK

CONSUMED = {"train_seconds": "s", "cpu_seconds": "s", "peak_memory_bytes": "B"}
COUNTED = {"parameters": "1", "bits": "bit", "operations": "1", "compression": "1", "speedup": "1"}


def figures_of(key: Key, outcome: Outcome) -> list[Figure]:
    """The numbers of a job that is done, for one of its keys.

    Raises:
        BibenchError: it printed none.
    """
    try:
        return _figures(key, outcome.result)
    except (KeyError, TypeError, ValueError) as error:
        raise BibenchError(f"What the job {outcome.name} printed has not the numbers of a result.") from error


def _figures(key: Key, printed: dict[str, Any]) -> list[Figure]:
    if key.track == "complexity":
        return [
            Figure(name=name, value=float(printed[name]), unit=unit, kind="model")
            for name, unit in COUNTED.items()
            if printed[name] is not None
        ]
    if key.track == "inference":
        (measured,) = printed["results"]
        return [*_inference(measured), *_scores(key, measured.get("metrics", {}))]
    if key.track == "training" and key.device:
        return [
            Figure(name=name, value=float(printed[name]), unit=unit, kind="measured")
            for name, unit in CONSUMED.items()
        ]
    if key.task == TASK:
        return [Figure(name="error", value=float(printed["error"]), unit="1", kind="measured")]
    metrics = printed.get("metrics") or {
        name.removeprefix("test_"): value for name, value in printed.items() if name.startswith("test_")
    }
    return _scores(key, metrics)


def _scores(key: Key, metrics: dict[str, Any]) -> list[Figure]:
    kind: Kind = "stand-in" if (key.corruption or key.task).startswith("standin_") else "measured"
    return [Figure(name=name, value=float(value), unit="1", kind=kind) for name, value in metrics.items()]


def _inference(measured: dict[str, Any]) -> list[Figure]:
    """An emulated board has executed instructions, exactly so many, and no time."""
    if measured["emulated"]:
        count = float(measured["instructions"]["median"])
        cost = Figure(name="latency", value=count, unit="instructions", kind="emulated")
    else:
        cost = Figure(name="latency", value=measured["latency_ms"]["median"] / 1e3, unit="s", kind="measured")
    return [cost, Figure(name="size", value=float(measured["size_bytes"]), unit="B", kind="measured")]


def layers_of(key: Key, outcome: Outcome) -> list[Layer]:
    """Of an inference, each layer with its time; seconds, or instructions of an emulated board.

    Raises:
        BibenchError: it printed something else.
    """
    if key.track != "inference":
        return []
    try:
        (measured,) = outcome.result["results"]
        scale = 1.0 if measured["unit"] == "instructions" else 1e-3
        alone: dict[str, dict[str, float]] = {}
        for kind in measured.get("against", {}).get("layers", []):
            # Only what ran on the same board has a ratio.
            times = {name: time["cost"] * scale for name, time in kind["times"].items() if time["ratio"]}
            alone |= dict.fromkeys([kind["name"], *kind["like"]], times)
        fields = Layer.__struct_fields__
        return [
            msgspec.convert(
                {name: layer[name] for name in fields if name in layer}
                | {"cost": layer["cost"] * scale, "alone": alone.get(layer["name"], {})},
                Layer,
            )
            for layer in measured["layers"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise BibenchError(f"What the job {outcome.name} printed has not the layers of a result.") from error
