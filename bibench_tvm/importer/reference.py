"""The source network as a verification needs it: run as it was written, or from integers given to it.

One protocol for PyTorch and ONNX; `from_torch/reference.py` and `from_onnx/reference.py` have the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

Interior = tuple[slice, ...]
Place = TypeVar("Place")


@dataclass(frozen=True)
class ReferenceRun:
    """What the original framework computed for one set of inputs.

    `outputs` has one array per output of the model. `layer_inputs` maps the name of a layer to its
    activation operands as the framework computed them, before anything was put in their place: one array, or
    two for a product of two activations. `tensors`: those that were asked for by name. `rounded_in_float32`:
    of a run in float64, whether an operator that rounds had to run in float32.
    """

    outputs: list[np.ndarray]
    layer_inputs: dict[str, tuple[np.ndarray, ...]]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    rounded_in_float32: bool = False


@dataclass(frozen=True)
class SourceLayer:
    """How a layer stands in the source.

    convolution: its operand is [N, C, ...]; else it is a matrix product. shapes: of its activation operands.
    interiors: for each of these, where a tensor lies in it that was padded with zeros for this layer alone,
    the last padding first. columns: a second operand is [.., K, N], not [.., N, K]. weight_axis: of the
    output channels, None for a product of two activations. weights_first: of a matrix product, whether they
    are its first operand.
    """

    convolution: bool
    shapes: tuple[tuple[int, ...], ...]
    interiors: tuple[tuple[Interior, ...], ...]
    columns: bool
    weight_axis: int | None
    weights_first: bool = False


@dataclass(frozen=True)
class Injection:
    """What a layer of the source gets in place of its own operands: arrays of their shapes; and weights."""

    operands: tuple[np.ndarray, ...]
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Decision:
    """Where a float becomes one of few values. kind: `zero`, `half` or `whole`, which says at what distances
    from `other` (0 where it is None) the value of `tensor` decides: 0, an integer and a half, an integer; or
    `order`, where it is which of its numbers is the larger."""

    kind: str
    tensor: str
    other: str | np.ndarray | None = None


class Reference(Protocol):
    """layers: by the names that a user knows."""

    @property
    def layers(self) -> Mapping[str, SourceLayer]: ...

    def __call__(
        self,
        values: list[np.ndarray],
        injections: Mapping[str, Injection] | None = None,
        *,
        wanted: Collection[str] = (),
        replaced: Mapping[str, np.ndarray] | None = None,
        nudged: Mapping[str, np.ndarray] | None = None,
        double: bool = False,
    ) -> ReferenceRun:
        """Run the source. Raises ValueError if the values do not match the inputs of the model.

        injections: layer -> what this layer, and nothing else that reads the same tensors, gets in their
        place. wanted: names of tensors to give back; replaced: tensor -> what all its readers get instead;
        nudged: tensor -> what each of its numbers is multiplied by for all its readers.
        double: in float64, all but what depends on parameters alone.
        """

    def weights(self, layer: str) -> np.ndarray:
        """The weights as the layer reads them."""

    def sums(self, layer: str, operands: tuple[np.ndarray, ...], weights: np.ndarray | None) -> np.ndarray:
        """What the source's own operator makes of such integers, without a bias; exact."""

    def decisions(self, layer: str, position: int) -> list[Decision]:
        """The nearest places before an operand of a layer where floats become few values, perhaps none."""

    def output_decisions(self, output: int) -> list[Decision]:
        """The same before an output of the network."""

    def before(self, tensor: str) -> list[str]:
        """The float tensors that one is computed from, back to what layers make of their operands."""


def nearest(
    place: Place,
    decision_of: Callable[[Place], Decision | None],
    sources_of: Callable[[Place], Iterable[Place]],
) -> list[Decision]:
    """The nearest decisions at or before a tensor or operator of the source: the first level that has any."""
    level = [place]
    seen: set[Place] = set()
    while level:
        seen.update(level)
        if found := [decision for at in level if (decision := decision_of(at))]:
            return found
        level = [s for s in dict.fromkeys(s for at in level for s in sources_of(at)) if s not in seen]
    return []


def reached(place: Place, sources_of: Callable[[Place], Iterable[Place]]) -> list[Place]:
    """Every tensor or operator of the source that one is computed from, without itself."""
    found: dict[Place, None] = {}
    level = list(sources_of(place))
    while level:
        at = level.pop()
        if at not in found and at != place:
            found[at] = None
            level.extend(sources_of(at))
    return list(found)
