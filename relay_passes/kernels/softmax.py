"""Softmax of rows, and what follows element by element."""

from __future__ import annotations

from relay_passes.ir.operators import attributes_of
from relay_passes.kernels.kernel import Kernel, Site
from schedules.kernels.softmax import Softmax, softmax_kernel


def lower_softmax(site: Site) -> Kernel:
    return Kernel(
        name="softmax",
        function=softmax_kernel(attributes_of(site.anchor, Softmax), site.epilogue),
        arguments=[site.anchor.args[0], *site.operands],
        epilogue=site.epilogue,
        operands=site.operands,
    )
