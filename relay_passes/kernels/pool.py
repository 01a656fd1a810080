"""The maximum or average of windows."""

from __future__ import annotations

from tvm import relax, tirx

from relay_passes.ir.operators import attributes_of
from relay_passes.kernels.kernel import Kernel, Site, Tunable
from schedules.kernels.pooling import Pooling, pooling_kernel
from schedules.records.kernel_task import outputs_of
from schedules.records.kinds.pooling import PoolingTask
from schedules.targets.kernel_target import Lanes


def lower_pool(site: Site) -> Kernel:
    pool = attributes_of(site.anchor, Pooling)

    def make(lanes: Lanes) -> tuple[tirx.PrimFunc, list[relax.Expr]]:
        return pooling_kernel(pool, site.epilogue, lanes), [site.anchor.args[0], *site.operands]

    task = PoolingTask(pool=pool, outputs=outputs_of(site.epilogue))
    function, arguments = make(site.choose(Tunable(task, make)))
    return Kernel(
        name="pool",
        function=function,
        arguments=arguments,
        epilogue=site.epilogue,
        operands=site.operands,
    )
