"""Activations that bits can stand for: of two values, of three, or of a few."""

from __future__ import annotations

import numpy as np
from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.planes import Planes, planes_of
from relay_passes.ir.three_valued import ThreeValued, three_values
from relay_passes.ir.two_valued import TwoValued, two_values

Bits = TwoValued | ThreeValued | Planes


def bits_of(builder: relax.BlockBuilder, x: relax.Expr, numbers: BoundValues) -> Bits | None:
    return (
        two_values(builder, x, numbers) or three_values(builder, x, numbers) or planes_of(builder, x, numbers)
    )


def is_zero_one(values: TwoValued | ThreeValued) -> bool:
    """Whether bits stand for 0 and 1, so that sums are kept doubled."""
    return isinstance(values, ThreeValued) or 0.0 in (values.low, values.high)


def planes_in(values: Bits) -> int:
    return len(values.parts) if isinstance(values, Planes) else 2 if isinstance(values, ThreeValued) else 1


def step_of(values: TwoValued | ThreeValued) -> np.float32:
    """What an integer of 1 is in the activations: half of the way from the lower to the higher, as sums over
    {0, 1} are kept doubled; below 0 for {l, 0}, whose bits say "l"."""
    if isinstance(values, TwoValued) and values.levels:
        return np.float32((values.high - values.low) / 2)
    height = values.height if isinstance(values, ThreeValued) else values.high or values.low
    return np.float32(height) * np.float32(0.5 if is_zero_one(values) else 1)
