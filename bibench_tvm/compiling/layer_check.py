"""What the comparison of one binary layer with the source counted, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

from bibench_tvm.artifact.manifest import LayerVerification
from bibench_tvm.compiling.operands import TOLERANCE


@dataclass
class LayerCheck:
    """Sums and bits have to be exact; a max_abs_error is relative to the largest value."""

    name: str
    sums: int = 0
    wrong_sums: int = 0
    wrong_bits: int = 0
    max_abs_error: float = 0.0
    signs: int = 0
    flipped_signs: int = 0
    excused_flips: int = 0
    signs_at_zero: int = 0
    reason: str = ""

    @property
    def unexcused_flips(self) -> int:
        return self.flipped_signs - self.excused_flips

    @property
    def exact(self) -> bool:
        return self.wrong_sums == self.wrong_bits == 0 and not self.reason

    @property
    def passed(self) -> bool:
        return self.exact and self.max_abs_error <= TOLERANCE and self.unexcused_flips == 0

    def why(self) -> str:
        """Why it failed; empty where it did not."""
        if self.reason:
            return self.reason
        found = [f"{self.wrong_sums:,} of its {self.sums:,} sums are wrong"] if self.wrong_sums else []
        if self.wrong_bits:
            found.append(f"{self.wrong_bits:,} bits that it wrote or read are wrong")
        if not self.max_abs_error <= TOLERANCE:
            found.append(f"what it wrote is off by {self.max_abs_error:.2g} of its largest value")
        if self.unexcused_flips:
            found.append(f"{self.unexcused_flips:,} signs that it read are not the source's")
        return ", ".join(found)

    def record(self) -> LayerVerification:
        counted = {**vars(self), "reason": self.why()}
        return LayerVerification(**counted, unexcused_flips=self.unexcused_flips, passed=self.passed)
