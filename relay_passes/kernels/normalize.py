"""Rows that are normalized, and what follows element by element."""

from __future__ import annotations

from relay_passes.ir.operators import attributes_of
from relay_passes.kernels.kernel import Kernel, Site
from schedules.kernels.normalization import Normalization, normalization_kernel


def lower_normalize(site: Site) -> Kernel:
    return Kernel(
        name="normalize",
        function=normalization_kernel(attributes_of(site.anchor, Normalization), site.epilogue),
        arguments=[site.anchor.args[0], *site.operands],
        epilogue=site.epilogue,
        operands=site.operands,
    )
