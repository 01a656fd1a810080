"""Float layers in int8: what range each of their inputs takes, and what the rounding costs in accuracy.

Both are found on this machine, for any target: the integers are the same everywhere. The range of an input
is the largest magnitude over the calibration samples; percentiles (99.9, 99.99) and the least squared error
chose nearly the same ranges for the bundled network, and gave the same accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tvm.artifact.manifest import MODEL, Accuracies, FloatArithmetic
from bibench_tvm.compiling.build import BuildOptions, build, chooser
from bibench_tvm.compiling.output_check import are_class_scores, top
from bibench_tvm.compiling.processors import CompileTarget, resolve_target
from bibench_tvm.compiling.rounding import largest_difference
from bibench_tvm.compiling.runners import run_here
from bibench_tvm.compiling.sampling import GivenSamples, Samples, count_runs, sample_inputs
from bibench_tvm.importer import Imported

if TYPE_CHECKING:
    from relay_passes import Lowered

OBSERVED = "observed.so"
INT8_HERE = "int8.so"
CALIBRATION_RUNS = 32
COMPARED_RUNS = 300


@dataclass(frozen=True)
class Calibration:
    """ranges: float layer -> largest magnitude of its input; runs: on so many samples; outputs: of the
    network in float, for each sample given."""

    ranges: dict[str, float]
    runs: int
    outputs: list[list[np.ndarray]]


def calibrate(imported: Imported, scratch: Path, samples: GivenSamples | None) -> Calibration:
    """scratch: a folder for the network in float for this machine."""
    library = scratch / OBSERVED
    lowered = _build_here(imported, library, BuildOptions(observe=True))
    names, inputs = lowered.observed, _compared_inputs(imported, samples)
    ranges = dict.fromkeys(names, 0.0)
    outputs = []
    for i, results in enumerate(run_here(library, inputs)):
        split = len(results) - len(names)
        outputs.append(results[:split])
        if i < CALIBRATION_RUNS:
            for name, values in zip(names, results[split:], strict=True):
                seen = np.abs(values[np.isfinite(values)]).max(initial=0.0)
                ranges[name] = max(ranges[name], float(seen))
    return Calibration(ranges, min(len(inputs), CALIBRATION_RUNS), outputs)


def cost_of_int8(
    imported: Imported,
    target: CompileTarget,
    scratch: Path,
    calibration: Calibration,
    samples: GivenSamples | None,
    labels: np.ndarray | None,
) -> FloatArithmetic:
    """The network in int8 beside the network in float, on this machine. scratch: the folder with what was
    compiled for the target."""
    library = scratch / MODEL
    if not target.is_host:
        library = scratch / INT8_HERE
        _build_here(imported, library, BuildOptions(ranges=calibration.ranges))
    ours = list(run_here(library, _compared_inputs(imported, samples)))
    compared = _compare_outputs(ours, calibration.outputs, labels)
    accuracies = compared.pop("accuracies", None)
    return FloatArithmetic(
        mode="int8",
        calibrated_on="random numbers" if samples is None else "samples",
        calibration_samples=calibration.runs,
        compared_samples=len(ours),
        accuracy=Accuracies(int8=accuracies[0], float32=accuracies[1]) if accuracies else None,
        accuracy_difference=accuracies[0] - accuracies[1] if accuracies else None,
        **compared,
    )


def _build_here(imported: Imported, library: Path, options: BuildOptions) -> Lowered:
    here = resolve_target("host")
    return build(imported, here, library, chooser(here, None), options)[0]


def _compared_inputs(imported: Imported, samples: GivenSamples | None) -> Samples:
    if samples is None:
        return sample_inputs(imported, CALIBRATION_RUNS, None)
    return sample_inputs(imported, max(1, min(COMPARED_RUNS, count_runs(imported, samples))), samples)


def _compare_outputs(
    ours: Sequence[Sequence[np.ndarray]], theirs: Sequence[Sequence[np.ndarray]], labels: np.ndarray | None
) -> dict[str, Any]:
    """Two versions of a network on the same samples: the share of samples with the same top-1 and with labels
    the top-1 accuracy of each, None where the first output is no score of classes; the largest difference."""
    differences = [
        largest_difference(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)
    ]
    compared: dict[str, Any] = {"agreement": None, "max_abs_error": max(differences)}
    if not are_class_scores(theirs[0][0]):
        return compared
    top_ours, top_theirs = (np.concatenate([top(outputs[0]) for outputs in side]) for side in (ours, theirs))
    compared["agreement"] = float((top_ours == top_theirs).mean())
    if labels is not None:
        expected = labels[: len(top_ours)]
        compared["accuracies"] = [float((tops == expected).mean()) for tops in (top_ours, top_theirs)]
    return compared
