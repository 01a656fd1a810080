"""Which kernels a processor gets, from its triple and features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from schedules.targets.aarch64_neon import AARCH64_NEON
from schedules.targets.arm32_neon import ARM32_NEON
from schedules.targets.dot_products import AVX512_VNNI, NEON_SDOT
from schedules.targets.generic import GENERIC
from schedules.targets.kernel_target import KernelTarget
from schedules.targets.x86_avx2 import X86_AVX2
from schedules.targets.x86_avx512 import X86_AVX512

ALL = (AARCH64_NEON, ARM32_NEON, X86_AVX512, X86_AVX2, GENERIC)


def kernel_target(triple: str, features: Collection[str]) -> KernelTarget:
    """triple: as LLVM writes it; features: LLVM's names, without a sign in front."""
    arch = triple.split("-")[0]
    if arch in ("aarch64", "arm64"):
        return replace(AARCH64_NEON, dot=NEON_SDOT) if "dotprod" in features else AARCH64_NEON
    if arch.startswith(("armv7", "armv8", "arm", "thumb")):
        return ARM32_NEON if "neon" in features else GENERIC
    if arch in ("x86_64", "amd64"):
        if {"avx512f", "avx512bw", "avx512vpopcntdq"} <= set(features):
            return replace(X86_AVX512, dot=AVX512_VNNI) if "avx512vnni" in features else X86_AVX512
        if "avx2" in features:
            return X86_AVX2
    return GENERIC


def executable(triple: str, features: Collection[str]) -> list[KernelTarget]:
    """All kernels that such a processor can execute, the best first."""
    best = kernel_target(triple, features)
    narrower = [X86_AVX2] if best.name == X86_AVX512.name and "avx2" in features else []
    return [best, *narrower, *([] if best is GENERIC else [GENERIC])]
