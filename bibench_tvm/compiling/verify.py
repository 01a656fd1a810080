"""Does the artifact compute what was trained? Layer by layer on the same inputs, and end to end.

The artifact and its twin, the probe, run on each sample, here or under QEMU; `comparison.py` says what is
compared with the source framework, `rounding.py` what rounding may explain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import UNSET

from bibench_tvm.artifact.manifest import SourceAccuracy, Verification
from bibench_tvm.compiling.calibrate import Samples, run_here
from bibench_tvm.compiling.comparison import Comparison
from bibench_tvm.compiling.output_check import are_class_scores, top
from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.compiling.rounding import largest_difference
from bibench_tvm.compiling.standalone.library import CLibrary

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported
    from relay_passes import Lowered

# An emulated network that takes longer than this hangs.
SAMPLE_LIMIT_S = 600.0

Runner = Callable[[Any, Samples], Iterator[list[np.ndarray]]]
"""Runs a library, a path or a `CLibrary`, on each sample; gives the outputs, tuples flattened, one sample
after the other."""


def skipped(reason: str) -> Verification:
    """A verification that did not run."""
    return Verification(
        backend=None, passed=None, reason=reason, samples=0, agreement=None, max_abs_error=None
    )


def runner_for(target: CompileTarget) -> tuple[str, Runner] | str:
    """(name of the backend, how it runs a library), or the sentence that says why there is none."""
    if target.is_host:
        return "host", run_here
    from rpc import emulated
    from rpc.emulation import arm32, cortex_m

    if target.name in cortex_m.MACHINES:
        if reason := cortex_m.missing():
            return f"{target.name} cannot be verified here: {reason}"
        name = target.name
        return f"qemu-system-arm -M {cortex_m.MACHINES[name].name}, as a library for C", _Emulated(
            lambda library, batch, limit: (
                cortex_m.run_network(library.network, batch, cpu=name, timeout_s=limit).outputs
            )
        )
    if not target.emulated_cpu:
        return f"{target.name} cannot be verified here: there is no emulator for it."

    if reason := arm32.missing() if target.runs_as_c else emulated.missing():
        return f"{target.name} cannot be verified here: {reason}"
    cpu = target.emulated_cpu
    if target.runs_as_c:
        return f"qemu-arm -cpu {cpu}, as a library for C", _Emulated(
            lambda library, batch, limit: arm32.run_network(library.network, batch, cpu=cpu, timeout_s=limit)
        )
    return f"qemu-aarch64 -cpu {cpu}", _Emulated(
        lambda library, batch, limit: emulated.run(library, batch, cpu=cpu, timeout_s=limit)
    )


@dataclass(frozen=True)
class _Emulated:
    """Runs under QEMU in batches of about 5 seconds: there is progress to show, and little to hold.

    run: the library on a batch, in so many seconds.
    """

    run: Callable[[Any, Samples, float], list[list[np.ndarray]]]

    def __call__(self, library: Any, samples: Samples) -> Iterator[list[np.ndarray]]:
        done, size = 0, 1
        while done < len(samples):
            batch = samples[done : done + size]
            start = time.monotonic()
            yield from self.run(library, batch, SAMPLE_LIMIT_S * len(batch))
            done += len(batch)
            size = max(1, min(2 * size, int(5 * len(batch) / (time.monotonic() - start))))


def compare_outputs(
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


def verify(
    imported: Imported,
    library: Path | CLibrary,
    probe: Path | CLibrary,
    lowered: Lowered,
    backend: tuple[str, Runner],
    samples: Samples,
    labels: np.ndarray | None,
    missed: Sequence[str],
    advance: Callable[[], None],
) -> Verification:
    """Run and compare.

    lowered: the probe. samples[i][j]: input j of run i; labels: the class of each sample, for the accuracy;
    missed: what these samples do not show, in sentences; advance: called after each sample. A run that breaks
    off is a verification that failed.
    """
    name, run = backend
    comparison = Comparison(imported, lowered)
    reason = ""
    results, probed = run(library, samples), run(probe, samples)
    try:
        for sample, outputs, seen in zip(samples, results, probed, strict=True):
            comparison.add(list(sample), outputs, seen[len(imported.outputs) :], labels)
            advance()
    except RuntimeError as error:  # the emulator's EmulationFailed and the virtual machine's own
        reason = f"It broke off in the batch after sample {comparison.outputs.samples}: {error}"
    reason = reason or comparison.reason()
    accuracy = comparison.outputs.accuracy() if labels is not None else None
    return Verification(
        backend=name,
        passed=not reason,
        reason=reason,
        not_compared=(*missed, *comparison.missed()),
        accuracy=SourceAccuracy(**accuracy) if accuracy else UNSET,
        **comparison.record(),
    )
