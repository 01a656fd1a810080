"""What rounding may explain: how far a tensor of the source in float32 is from the same tensor in float64.

Both run from the same integers of the artifact, so that no sign makes much of a little. The difference is
taken relative to the largest value, and as the largest that was seen on any sample; where a tensor has few
numbers, one of which may happen to be exact, on shuffled integers besides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bibench_tvm.importer import Decision, Injection, Reference

IN_HALF = 2.0**13
"""Float16 rounds so many times as coarsely as float32: it has 10 bits after the point, and not 23."""
MULTIPLE = 8.0
"""Of the difference: another order of a sum, or Winograd's method, rounds so much more coarsely at most."""
OUTPUT_MULTIPLE = 4 * MULTIPLE
"""The same of an output, behind sums over whole images: one that is added up in order, 400 numbers long, was
seen to be 10 times as far from float64 as one that is added up in pairs."""
FLOOR = 8 * float(np.finfo(np.float32).eps)
"""Relative to the largest value: what nothing that rounds at all can be asked to be below."""
FALLBACK = 1e-5  # relative, where the source cannot run in float64
_ENOUGH = 8  # numbers that rounding is judged by
_DRAWS = 16
_NUDGE = 16 * float(np.finfo(np.float32).eps)  # relative: a few roundings
_NUDGES = 2

Injections = Mapping[str, Injection]


class Rounding:
    """Of one source; measured only where something has to be explained.

    in_half: the layers on whose operands float16 decided, by name, and the positions of outputs that it
    reached, which round `IN_HALF` times as coarsely.
    float_layers: of those that are given operands, which add them up as floats.
    unmeasured: whether the source could not run in float64, so that a fixed number had to do.
    """

    def __init__(self, reference: Reference, in_half: frozenset[str | int] = frozenset()):
        self.reference, self._in_half = reference, in_half
        self.unmeasured = False
        self.float_layers: set[str] = set()
        self._relative: dict[str, float] = {}
        self._numbers: Counter[str] = Counter()
        self._generator = np.random.default_rng(0)

    def explains(
        self, output: int, ours: np.ndarray, theirs: np.ndarray, values: list[np.ndarray], given: Injections
    ) -> bool:
        """Whether an output of the artifact is that of the source but for rounding."""
        difference = largest_difference(ours, theirs)
        if theirs.dtype.kind != "f":
            return difference == 0 or self._decided_otherwise(output, ours, theirs, values, given)
        scale = magnitude(theirs)
        name = f"output {output}"
        coarseness = self._coarseness(output)
        if difference <= coarseness * max(FLOOR, OUTPUT_MULTIPLE * self._relative.get(name, 0.0)) * max(
            scale, 1e-3
        ):
            return True
        own = self._measure(output, values, given)
        return difference <= coarseness * OUTPUT_MULTIPLE * max(own, self._relative[name] * scale)

    def excused(
        self,
        layer: str,
        position: int,
        flipped: np.ndarray,
        ours: np.ndarray,
        values: list[np.ndarray],
        given: Injections,
        code: Callable[[np.ndarray], np.ndarray] = np.sign,
    ) -> np.ndarray:
        """bool: which of the flipped signs of an operand may be due to rounding: a small multiple of it,
        added to or taken from what is compared, gives our sign, and it is not exactly on the threshold, or
        only by accident, see `_accidents`.

        ours: as the artifact has the operand; code: which of its values a number is, 0 between two.
        """
        decisions = self.reference.decisions(layer, position)
        found = np.zeros_like(flipped)
        for accidents in (False, True):
            if not (flipped & ~found).any():
                break
            moves = self._moves(decisions, values, given, self._coarseness(layer), accidents=accidents)
            if not moves:
                continue
            above, below = (
                code(
                    self.reference(
                        values, given, replaced={name: x + sign * move for name, (x, move) in moves.items()}
                    ).layer_inputs[layer][position]
                )
                for sign in (1, -1)
            )
            signs = code(ours)
            # Between the two lies the 0 of a sum that cancels out, which the source has but for rounding.
            found |= flipped & (np.minimum(above, below) <= signs) & (signs <= np.maximum(above, below))
        return found

    def _decided_otherwise(
        self, output: int, ours: np.ndarray, theirs: np.ndarray, values: list[np.ndarray], given: Injections
    ) -> bool:
        """Whether each integer of an output may be due to rounding of the floats that decided on it, a class
        of which two are equally likely, say: each has to come out where these are moved at random."""
        decisions = self.reference.output_decisions(output)
        moves = self._moves(decisions, values, given, self._coarseness(output))
        reached = ours == theirs
        for _ in range(_DRAWS if moves else 0):
            moved = {
                name: tensor + self._generator.choice(np.array([-1, 1], tensor.dtype), tensor.shape) * move
                for name, (tensor, move) in moves.items()
            }
            reached = reached | (self.reference(values, given, replaced=moved).outputs[output] == ours)
            if reached.all():
                break
        return bool(reached.all())

    def _coarseness(self, of: str | int) -> float:
        return IN_HALF if of in self._in_half else 1.0

    def _moves(
        self,
        decisions: Sequence[Decision],
        values: list[np.ndarray],
        given: Injections,
        coarseness: float,
        *,
        accidents: bool = False,
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Name of a tensor that decides -> (itself, how far rounding may move it); exactly on the threshold
        it does not move, but with `accidents` where it is there by one."""
        moves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for decision in decisions:
            names = [n for n in (decision.tensor, decision.other) if isinstance(n, str)]
            reach = sum(self._measure(name, values, given) for name in names)
            tensors = self.reference(values, given, wanted=names).tensors
            x = tensors[decision.tensor]
            distance = np.ones_like(x) if decision.kind == "order" else _distance(decision, x, tensors)
            if x.dtype.kind != "f" or distance.shape != x.shape:
                continue
            free = distance != 0
            if accidents and reach and not free.all():
                free |= self._accidents(decision, values, given)
            floor = FLOOR * magnitude(x) if reach else 0.0  # what does not round at all has no excuse
            moves[decision.tensor] = (
                x,
                np.where(free, coarseness * max(MULTIPLE * reach, floor), 0).astype(x.dtype),
            )
        return moves

    def _accidents(self, decision: Decision, values: list[np.ndarray], given: Injections) -> np.ndarray:
        """bool: where a tensor is exactly on the threshold as floats happened to round, if it is at all.

        There is no such place in float64, or none where the tensors before it have each moved by as little
        as they round, and the operands that a float layer was given. A 0 that a rectifier or a border made
        stays one, and so does the sum of a binary layer.
        """
        names = [n for n in (decision.tensor, decision.other) if isinstance(n, str)]

        def distance(given: Injections, **options: Any) -> np.ndarray:
            tensors = self.reference(values, given, wanted=names, **options).tensors
            return _distance(decision, tensors[decision.tensor], tensors)

        before = list(dict.fromkeys(sum((self.reference.before(name) for name in names), [])))
        narrow = self.reference(values, given, wanted=before).tensors
        try:
            found = distance(given, double=True) != 0
            wide = self.reference(values, given, wanted=before, double=True).tensors
        except Exception:  # an operator that has no float64 in PyTorch
            found, wide = distance(given) != 0, {}
        rounded = [n for n in before if n not in wide or largest_difference(narrow[n], wide[n])]
        in_floats = [layer for layer in given if layer in self.float_layers]
        for _ in range(_NUDGES if rounded or in_floats else 0):
            moved = {**given}
            for layer in in_floats:
                operands = tuple(operand * self._factors(operand.shape) for operand in given[layer].operands)
                moved[layer] = replace(given[layer], operands=operands)
            found |= distance(moved, nudged={n: self._factors(narrow[n].shape) for n in rounded}) != 0
        return found

    def _factors(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32: next to 1."""
        return (1 + _NUDGE * self._generator.uniform(-1, 1, shape)).astype(np.float32)

    def _measure(self, what: int | str, values: list[np.ndarray], given: Injections) -> float:
        """The largest difference between float32 and float64 in an output or a tensor on this sample;
        learns what it is relative to the largest value."""
        own, scale = self._look(what, values, given)
        name = what if isinstance(what, str) else f"output {what}"
        while 0 < self._numbers[name] < _ENOUGH:
            self._look(what, *self._shuffled(values, given))
        return max(own, self._relative[name] * scale)

    def _look(self, what: int | str, values: list[np.ndarray], given: Injections) -> tuple[float, float]:
        name = what if isinstance(what, str) else f"output {what}"
        wanted = [what] if isinstance(what, str) else []
        narrow = self.reference(values, given, wanted=wanted)
        x = narrow.tensors[what] if isinstance(what, str) else narrow.outputs[what]
        scale = magnitude(x)
        try:
            wide = self.reference(values, given, wanted=wanted, double=True)
            y = wide.tensors[what] if isinstance(what, str) else wide.outputs[what]
            own = largest_difference(x, y)
            unmeasured = wide.rounded_in_float32
        except Exception:  # an operator that has no float64 in PyTorch
            own, unmeasured = 0.0, True
        if unmeasured:
            self.unmeasured = True
            own = max(own, FALLBACK * scale)
        self._relative[name] = max(self._relative.get(name, 0.0), own / scale if scale else 0.0)
        self._numbers[name] += x.size
        return own, scale

    def _shuffled(
        self, values: list[np.ndarray], given: Injections
    ) -> tuple[list[np.ndarray], dict[str, Injection]]:
        def shuffle(array: np.ndarray) -> np.ndarray:
            return self._generator.permutation(array.ravel()).reshape(array.shape)

        injections = {
            layer: replace(injection, operands=tuple(map(shuffle, injection.operands)))
            for layer, injection in given.items()
        }
        return list(map(shuffle, values)), injections


def _distance(decision: Decision, x: np.ndarray, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """From the nearest value at which the decision changes; 0 exactly there."""
    other = tensors[decision.other] if isinstance(decision.other, str) else decision.other
    difference = x - other.astype(x.dtype) if other is not None else x
    if decision.kind == "half":
        return difference - np.floor(difference) - x.dtype.type(0.5)
    return difference - np.rint(difference) if decision.kind == "whole" else difference


def magnitude(values: np.ndarray) -> float:
    """The largest finite magnitude."""
    magnitudes = np.abs(values.astype(np.float64))
    return float(magnitudes[np.isfinite(magnitudes)].max(initial=0.0))


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Infinities and NaN that are the same in both do not differ."""
    if not ours.size:
        return 0.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(difference, nan=np.finfo(np.float64).max).max())


def same_structure(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> str:
    """Empty where shapes and dtypes are the same, else a sentence."""
    if len(ours) != len(theirs):
        return f"The artifact has {len(ours)} outputs, and the source {len(theirs)}."
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"The artifact's output {i} is {a.dtype} {a.shape}, and the source's {b.dtype} {b.shape}."
    return ""
