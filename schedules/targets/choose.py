"""Which kernels a processor gets, from its triple and features.

Triples are as LLVM writes them, with `aarch64`, `x86_64` or `armv...` for the machine, whatever else it is
called (rpc/machine_name.py); features are LLVM's names, without a sign in front.
"""

from __future__ import annotations

from collections.abc import Collection

from schedules.targets import aarch64_neon, arm32_neon, arm32_scalar, generic, x86_avx2, x86_avx512
from schedules.targets.family import Family
from schedules.targets.kernel_target import KernelTarget

# Of one machine the best first, and the one for all last.
FAMILIES = (
    aarch64_neon.FAMILY,
    arm32_neon.FAMILY,
    arm32_scalar.FAMILY,
    x86_avx512.FAMILY,
    x86_avx2.FAMILY,
    generic.FAMILY,
)
ALL = tuple(family.kernels for family in FAMILIES)
TELLING = frozenset[str]().union(*(family.telling for family in FAMILIES))


def families(triple: str, features: Collection[str]) -> list[Family]:
    """Those whose kernels such a processor can execute, the best first."""
    return [family for family in FAMILIES if family.has(triple, features)]


def executable(triple: str, features: Collection[str], core: str = "") -> list[KernelTarget]:
    """All kernels that such a processor can execute, the best first. core: LLVM's name of its cores."""
    return [family.kernels_for(features, core) for family in families(triple, features)]


def kernel_target(triple: str, features: Collection[str], core: str = "") -> KernelTarget:
    return executable(triple, features, core)[0]
