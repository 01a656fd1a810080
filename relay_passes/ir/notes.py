"""What the table says of a layer besides: sentences of which others look for the first ones."""

from __future__ import annotations

from relay_passes.ir.activations import Bits
from relay_passes.ir.planes import Planes
from relay_passes.ir.three_valued import ThreeValued
from relay_passes.ir.two_valued import TwoValued
from relay_passes.ir.weight_planes import WeightPlanes
from relay_passes.ir.weights import FEW_ULPS, BinaryWeights

SIGN_NOTE = "sign(0) is 0 in the source network and +1 here; only an accident of floats is exactly 0 there"

STORED_NOTE = "its weights are two numbers of each output channel, and are stored in bits"

CONSTANT_NOTE = (
    "every element of its input is the same: what is compared is never negative, or never positive"
)


def notes_of_rounding(values: Bits) -> list[str]:
    if values.moved is None:
        return []
    if isinstance(values, Planes):
        far = f"{values.moved:.2g} at most as seen from -16 to 16"
        return [f"rounding in the source moves these values by {far}"]
    height = values.height if isinstance(values, ThreeValued) else max(abs(values.low), abs(values.high))
    taken = f"{height:g} and {-height:g}"
    if isinstance(values, TwoValued):
        taken = f"{values.low:g} and {values.high:g}"
    far = f"{values.moved:.2g} at most as seen from -16 to 16"
    return [f"its input is {taken} but for rounding in the source, which moves it by {far}"]


def notes_of_weights(weights: BinaryWeights | WeightPlanes) -> list[str]:
    if isinstance(weights, WeightPlanes):
        taken = f"its weights take up to {weights.values} values in an output channel"
        notes = [f"{taken}, in {len(weights.planes)} planes of bits"]
        if weights.moved > FEW_ULPS:
            notes.append(f"rounding in the source moves them, by {weights.moved:.2g} of the largest at most")
        return notes
    if not weights.moved:
        return []
    return [f"rounding in the source moves its weights from +-alpha, by {weights.moved:.2g} of alpha at most"]
