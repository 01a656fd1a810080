"""What was found: every convolution, linear layer and matrix product, binary or with the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """macs: products per run; weight_bytes: in the artifact; reason: empty where binarized."""

    name: str
    op: str
    binarized: bool
    reason: str
    macs: int
    weight_bytes: int
    notes: str = ""
