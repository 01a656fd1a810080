"""What the comparison of outputs with the source's counted, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bibench_tvm.compiling.operands import TOLERANCE
from bibench_tvm.compiling.rounding import Rounding, largest_difference, magnitude
from bibench_tvm.importer import Injection, Reference, ReferenceRun

# Of the program as exported against the decomposed one, of which signs may flip.
_SAME_PROGRAM = 1e-3


@dataclass
class OutputCheck:
    """Outputs have to be the source's but for rounding; which class they say is counted, and not demanded."""

    reference: Reference
    rounding: Rounding
    samples: int = 0
    off: int = 0  # samples
    max_abs_error: float = 0.0
    largest_off: float = 0.0
    other_program: bool = False
    tops: int = 0  # rows of class scores
    agreeing: int = 0
    right_before: int = 0
    right_after: int = 0

    def compare(
        self,
        outputs: Sequence[np.ndarray],
        plain: ReferenceRun,
        run: ReferenceRun,
        values: list[np.ndarray],
        injections: Mapping[str, Injection],
    ) -> None:
        """outputs: the artifact's. run: the source from what the artifact decided; plain: by itself."""

        def explained(theirs: Sequence[np.ndarray]) -> bool:
            pairs = enumerate(zip(outputs, theirs, strict=True))
            return all(self.rounding.explains(i, a, b, values, injections) for i, (a, b) in pairs)

        differences = [largest_difference(a, b) for a, b in zip(outputs, plain.outputs, strict=True)]
        self.max_abs_error = max(self.max_abs_error, *differences)
        if explained(run.outputs):
            return
        if run is plain:  # from the program as exported: does the decomposed one say something else?
            run = self.reference(values, injections)
            if explained(run.outputs):
                self.other_program |= any(
                    largest_difference(a, b) > _SAME_PROGRAM * max(magnitude(b), 1e-3)
                    for a, b in zip(run.outputs, plain.outputs, strict=True)
                )
                return
        self.off += 1
        off = [largest_difference(a, b) for a, b in zip(outputs, run.outputs, strict=True)]
        self.largest_off = max(self.largest_off, *off)

    def count_tops(self, ours: np.ndarray, scores: np.ndarray, labels: np.ndarray | None) -> None:
        if not are_class_scores(scores):
            return
        rows = np.arange(len(scores))
        top_ours, top_theirs = top(ours), top(scores)
        # Where two scores are equal but for rounding, either is the top.
        lead = (scores[rows, top_theirs] - scores[rows, top_ours]).astype(np.float64)
        self.agreeing += int(((top_ours == top_theirs) | (lead <= TOLERANCE * magnitude(scores))).sum())
        if labels is not None:
            expected = labels[self.tops : self.tops + len(rows)]
            self.right_after += int((top_ours == expected).sum())
            self.right_before += int((top_theirs == expected).sum())
        self.tops += len(rows)

    def reasons(self) -> list[str]:
        """Why they failed, in sentences."""
        sentences = []
        if self.off:
            sentences.append(
                f"On {self.off} of {self.samples} samples the outputs differ from the source's by up to "
                f"{self.largest_off:.2g}, which is more than rounding."
            )
        if self.other_program:
            sentences.append("The program as PyTorch exported it and its decomposition differ.")
        return sentences

    def accuracy(self) -> dict[str, float] | None:
        """Top-1, of samples with labels."""
        if not self.tops:
            return None
        return {"source": self.right_before / self.tops, "compiled": self.right_after / self.tops}


def are_class_scores(output: np.ndarray) -> bool:
    """Floats [N, classes]: of these the largest is what a classifier says."""
    return output.ndim == 2 and output.shape[1] > 1 and output.dtype.kind == "f"


def top(scores: np.ndarray) -> np.ndarray:
    return np.argmax(scores, -1)
