"""What a record of each kind of kernel holds."""

from __future__ import annotations

from schedules.records.kernel_task import KernelTask
from schedules.records.kinds.depthwise import DepthwiseTask
from schedules.records.kinds.int8 import Int8Task
from schedules.records.kinds.packing import PlanarPackingTask
from schedules.records.kinds.pooling import PoolingTask
from schedules.records.kinds.product import ProductTask
from schedules.records.kinds.tiled import TiledTask
from schedules.records.kinds.winograd import WinogradTask
from schedules.targets.kernel_target import Choice

TASKS: tuple[type[KernelTask], ...] = (
    TiledTask,
    Int8Task,
    ProductTask,
    DepthwiseTask,
    WinogradTask,
    PlanarPackingTask,
    PoolingTask,
)
CHOICES: dict[str, type[Choice]] = {kind: task.choice for task in TASKS for kind in task.kinds}
