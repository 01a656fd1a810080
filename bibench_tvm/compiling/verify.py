"""Does the artifact compute what was trained? Layer by layer on the same inputs, and end to end.

The artifact and its twin, the probe, run on each sample, here or under QEMU; `comparison.py` says what is
compared with the source framework, `rounding.py` what rounding may explain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET

from bibench_tvm.artifact.manifest import SourceAccuracy, Verification
from bibench_tvm.compiling.comparison import Comparison
from bibench_tvm.compiling.runners import Runner
from bibench_tvm.compiling.sampling import Samples
from bibench_tvm.compiling.standalone.library import CLibrary

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported
    from relay_passes import Lowered


def skipped(reason: str) -> Verification:
    """A verification that did not run."""
    return Verification(
        backend=None, passed=None, reason=reason, samples=0, agreement=None, max_abs_error=None
    )


@dataclass(frozen=True, kw_only=True)
class VerifiedOn:
    """labels: the class of each sample, for the accuracy; missed: what these samples do not show, in
    sentences."""

    samples: Samples
    labels: np.ndarray | None
    missed: Sequence[str]


def verify(
    imported: Imported,
    library: Path | CLibrary,
    probe: Path | CLibrary,
    lowered: Lowered,
    backend: tuple[str, Runner],
    on: VerifiedOn,
    advance: Callable[[], None],
) -> Verification:
    """Run and compare.

    lowered: the probe; advance: called after each sample. A run that breaks off is a verification that
    failed.
    """
    name, run = backend
    comparison = Comparison(imported, lowered)
    reason = ""
    results, probed = run(library, on.samples), run(probe, on.samples)
    try:
        for sample, outputs, seen in zip(on.samples, results, probed, strict=True):
            comparison.add(list(sample), outputs, seen[len(imported.outputs) :], on.labels)
            advance()
    except RuntimeError as error:  # the emulator's EmulationFailed and the virtual machine's own
        reason = f"It broke off in the batch after sample {comparison.outputs.samples}: {error}"
    reason = reason or comparison.reason()
    accuracy = comparison.outputs.accuracy() if on.labels is not None else None
    return Verification(
        backend=name,
        passed=not reason,
        reason=reason,
        not_compared=(*on.missed, *comparison.missed()),
        accuracy=SourceAccuracy(**accuracy) if accuracy else UNSET,
        **comparison.record(),
    )
