"""A family of processors: those that get the same kernels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from schedules.geometry import Convolution
from schedules.targets.kernel_target import DotProduct, KernelTarget, Tile


@dataclass(frozen=True, kw_only=True)
class Family:
    """Features go by LLVM's names, without a sign in front."""

    kernels: KernelTarget
    machine: str  # what a triple begins with; empty for any
    needs: frozenset[str] = frozenset()  # features that the kernels cannot do without
    lacks: frozenset[str] = frozenset()  # features with which the kernels of another family are faster
    # Features that code for this family may use on purpose: an artifact names those that it was compiled
    # with, and a machine without them is refused.
    telling: frozenset[str] = frozenset()
    dots: Mapping[str, DotProduct] = field(default_factory=dict)  # better than that of `kernels`, by feature
    # Better than that of `kernels`, by LLVM's name of the core for which code is scheduled.
    binary_tiles: Mapping[str, Callable[[Convolution], Tile]] = field(default_factory=dict)
    half_needs: str = ""  # the feature without which `kernels.half_tile` is none of a processor's
    # LLVM's names of processors for what a better one is taken for: one that has what these kernels need and
    # little more, and one with no more than every such machine.
    cpu: str = "generic"
    least_cpu: str = "generic"

    def has(self, triple: str, features: Collection[str]) -> bool:
        """Whether such a processor can execute the kernels, and has no better ones."""
        return (
            triple.startswith(self.machine) and self.needs <= set(features) and not self.lacks & set(features)
        )

    def kernels_for(self, features: Collection[str], core: str = "") -> KernelTarget:
        """core: LLVM's name of it, where one is known."""
        dot = next((dot for feature, dot in self.dots.items() if feature in features), self.kernels.dot)
        half_tile = self.kernels.half_tile if self.half_needs in features else None
        binary_tile = self.binary_tiles.get(core, self.kernels.binary_tile)
        return replace(self.kernels, dot=dot, half_tile=half_tile, binary_tile=binary_tile)
