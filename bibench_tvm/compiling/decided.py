"""Signs before layers that stay float: the artifact's, in place of the source's.

A number next to a threshold falls on either side of it as floats round, and what such a layer makes of it is
another result. So the source is given what the artifact decided, as it is before a binary layer; each that is
not the source's own decision needs the same excuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from bibench_tvm.compiling.operands import TOLERANCE, in_source, place_among
from bibench_tvm.compiling.rounding import Rounding
from bibench_tvm.importer import Injection, Reference, ReferenceRun
from relay_passes.ir.decided import Decided

_MOST = 3  # values that an operand is taken to have been chosen from


class FloatDecisions:
    """signs: how many were looked at, of all layers together; flipped, excused: of these."""

    def __init__(self, reference: Reference, decided: Sequence[Decided], rounding: Rounding) -> None:
        self.reference, self.decided, self.rounding = reference, decided, rounding
        self.signs = self.flipped = self.excused = 0
        self.wrong: dict[str, None] = {}  # layers with a sign that has no excuse

    def injections(self, seen: Sequence[np.ndarray], plain: ReferenceRun) -> dict[str, Injection]:
        """seen: what the artifact has, in the order of `decided`. An operand that is not the source's but
        for which of its few values is taken leaves the source its own."""
        found = {}
        for read, array in zip(self.decided, seen, strict=True):
            layer = self.reference.layers.get(read.layer)
            if layer is None or len(layer.shapes) != 1:
                continue
            [theirs] = plain.layer_inputs[read.layer]
            if read.channels_first:
                ours = array if array.shape == theirs.shape else None
            else:
                placed = in_source(array, layer, 0)
                ours = placed.codes if placed else None
            values = np.unique(theirs)
            if ours is None or not 2 <= len(values) <= _MOST:
                continue
            taken = values[np.abs(ours[..., None] - values).argmin(-1)]
            if np.abs(taken - ours).max() <= TOLERANCE * np.abs(values).max():
                found[read.layer] = Injection((taken.astype(theirs.dtype),))
                self.rounding.float_layers.add(read.layer)
        return found

    def check(
        self,
        own: Mapping[str, Injection],
        run: ReferenceRun,
        values: list[np.ndarray],
        injections: Mapping[str, Injection],
    ) -> None:
        """own: what `injections` gave; run: the source from all of them."""
        for layer, injection in own.items():
            [ours], [theirs] = injection.operands, run.layer_inputs[layer]
            levels = np.unique(np.concatenate([ours.ravel(), theirs.ravel()]))
            middles = (levels[1:] + levels[:-1]) / 2
            flipped = np.abs(ours - theirs) > TOLERANCE * np.abs(levels).max()
            self.signs += flipped.size
            self.flipped += int(flipped.sum())
            if flipped.any():
                excused = self.rounding.excused(
                    layer, 0, flipped, ours, values, injections, partial(place_among, middles)
                )
                self.excused += int(excused.sum())
                if (flipped & ~excused).any():
                    self.wrong[layer] = None

    def reason(self) -> str:
        """A sentence, empty where every sign has its excuse."""
        if not self.wrong:
            return ""
        count = self.flipped - self.excused
        return (
            f"Before layers that stay float, {', '.join(self.wrong)}, {count:,} signs are not the source's, "
            "and rounding does not explain it."
        )
