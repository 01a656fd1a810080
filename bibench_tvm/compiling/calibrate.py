"""Float layers in int8: what range each of their inputs takes, and what the rounding costs in accuracy.

Both are found on this machine, for any target: the integers are the same everywhere. The range of an input
is the largest magnitude over the calibration samples; percentiles (99.9, 99.99) and the least squared error
chose nearly the same ranges for the bundled network, and gave the same accuracy.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bibench_tvm.artifact.artifact import flatten, load_vm
from bibench_tvm.artifact.threads import run_where_threads_are

CALIBRATION_RUNS = 32
COMPARED_RUNS = 300

Samples = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True)
class Calibration:
    """ranges: float layer -> largest magnitude of its input; runs: on so many samples; outputs: of the
    network in float, for each sample given."""

    ranges: dict[str, float]
    runs: int
    outputs: list[list[np.ndarray]]


def calibrate(library: Path, names: Sequence[str], samples: Samples) -> Calibration:
    """library: the network in float for this machine, built with `observe`; names: the layers observed."""
    ranges = dict.fromkeys(names, 0.0)
    outputs = []
    for i, results in enumerate(run_here(library, samples)):
        split = len(results) - len(names)
        outputs.append(results[:split])
        if i < CALIBRATION_RUNS:
            for name, values in zip(names, results[split:], strict=True):
                seen = np.abs(values[np.isfinite(values)]).max(initial=0.0)
                ranges[name] = max(ranges[name], float(seen))
    return Calibration(ranges, min(len(samples), CALIBRATION_RUNS), outputs)


def run_here(library: Path, samples: Samples) -> Any:
    """The outputs of the network for each sample, on this machine."""
    import tvm

    main = load_vm(library)["main"]
    for sample in samples:
        tensors = [tvm.runtime.tensor(x) for x in sample]
        yield flatten(run_where_threads_are(functools.partial(main, *tensors)))
