"""What is a layer in Relax, and what was found of each: every convolution, linear layer and matrix product,
binary or with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schedules.geometry import Convolution

CONVOLUTIONS = (
    "relax.nn.conv1d",
    "relax.nn.conv2d",
    "relax.nn.conv3d",
    "relax.nn.conv1d_transpose",
    "relax.nn.conv2d_transpose",
    "relax.nn.conv3d_transpose",
)
LAYERS = (*CONVOLUTIONS, "relax.matmul")
"""Relax's operators that can be binarized, as networks are imported."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    name: str  # as a user knows it
    op: str  # conv2d, conv1d, linear, matmul, or what kind of layer has no operator of ours
    binarized: bool
    reason: str = ""  # why it is not binarized
    macs: int  # products per run
    weight_bytes: int  # in the artifact
    notes: str = ""
    geometry: Convolution | None = None  # channels last; None for what is neither a convolution nor linear
    dtype: str = "float32"  # or binary, int8 or float16

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        geometry = self.geometry and {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self.geometry).items()
        }
        return {**vars(self), "geometry": geometry}
