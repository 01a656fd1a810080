"""Float activations to 8-bit integers and what they stand for: symmetric, one scale for a tensor.

    q = clip(round(x / scale), -127, 127),  x ~ scale * q,  ties to even

as in Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, with the zero point of signed integers at 0, so that padding with 0 is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

LARGEST = 127
# A float32 of this size has no bits after the point: adding it rounds to even and leaves the integer, in
# two's complement, in the low bits. Some processors have no instruction that rounds.
_ROUNDS = 1.5 * 2**23


@dataclass(frozen=True)
class Quantizer:
    """scale: what 1 stands for. zero_point: added where the integers are stored, for instructions that want
    them unsigned."""

    scale: float
    zero_point: int = 0

    @property
    def factor(self) -> np.float32:
        return np.float32(1 / self.scale)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """float32 -> int8 of the same shape."""
        return np.rint(np.clip(x * self.factor, -LARGEST, LARGEST)).astype(np.int8)

    def stored(self, q: np.ndarray) -> np.ndarray:
        """int8 -> the byte that is stored for it."""
        return (q.astype(np.int16) + self.zero_point).astype(np.uint8)

    def meant(self, stored: np.ndarray) -> np.ndarray:
        """The inverse of `stored`."""
        return (stored - np.uint8(self.zero_point)).view(np.int8)

    def emit(self, x: Any, lanes: int) -> Any:
        """The stored byte of a float32, or of a vector of them, as TIR: uint8."""

        def number(value: float) -> Any:
            scalar = tirx.const(value, "float32")
            return T.broadcast(scalar, lanes) if lanes > 1 else scalar

        clipped = tirx.min(tirx.max(x * number(float(self.factor)), number(-LARGEST)), number(LARGEST))
        vector = f"x{lanes}" if lanes > 1 else ""
        bits = tirx.call_intrin(
            f"uint32{vector}", "tirx.reinterpret", clipped + number(_ROUNDS + self.zero_point)
        )
        return bits.astype(f"uint8{vector}")
