"""What was found: every convolution, linear layer and matrix product, binary or with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schedules.geometry import Convolution


@dataclass(frozen=True)
class Layer:
    """macs: products per run; weight_bytes: in the artifact; reason: empty where binarized; geometry:
    channels last, None for what is neither a convolution of ours nor linear; dtype: binary, int8 or
    float32."""

    name: str
    op: str
    binarized: bool
    reason: str
    macs: int
    weight_bytes: int
    notes: str = ""
    geometry: Convolution | None = None
    dtype: str = "float32"

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        geometry = self.geometry and {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self.geometry).items()
        }
        return {**vars(self), "geometry": geometry}
