"""The maximum or average of windows."""

from __future__ import annotations

from relay_passes.ir.operators import attributes_of
from relay_passes.kernels.kernel import Kernel, Site
from schedules.kernels.pooling import Pooling, pooling_kernel


def lower_pool(site: Site) -> Kernel:
    return Kernel(
        name="pool",
        function=pooling_kernel(attributes_of(site.anchor, Pooling), site.epilogue),
        arguments=[site.anchor.args[0], *site.operands],
        epilogue=site.epilogue,
        operands=site.operands,
    )
