"""The maximum or average of windows."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import tirx

from schedules.kernels.pooling import LANES, Pooling, pooling_kernel
from schedules.records.bare_epilogue import bare_epilogue
from schedules.records.kernel_task import KernelTask, said_of_outputs
from schedules.records.lane_space import fewer_or_more, refusal_of_lanes
from schedules.targets.kernel_target import KernelTarget, Lanes


@dataclass(frozen=True, kw_only=True)
class PoolingTask(KernelTask[Lanes]):
    choice = Lanes
    kinds = ("pooling",)

    pool: Pooling

    @property
    def kind(self) -> str:
        return "pooling"

    @property
    def exact(self) -> bool:
        return not self.pool.average

    @property
    def title(self) -> str:
        conv = self.pool.window
        window, strides = ("x".join(map(str, pair)) for pair in (conv.kernel, conv.strides))
        what = "average" if self.pool.average else "maximum"
        image = f"{conv.height}x{conv.width}x{conv.channels}"
        return f"{what} {window} / {strides}, {image}, {said_of_outputs(self.outputs)}"

    def default(self, target: KernelTarget) -> Lanes:
        return LANES

    def refusal(self, choice: Lanes) -> str | None:
        if choice.together != 1:
            return "a window is computed by itself"
        return refusal_of_lanes(choice, self.pool.window.channels, self.outputs)

    def candidates(self, target: KernelTarget) -> list[Lanes]:
        vector = target.vector_bits // tvm.DataType(self.pool.dtype).bits
        found = fewer_or_more(self.default(target), vector, self.pool.window.channels)
        return [lanes for lanes in found if self.refusal(lanes) is None]

    def bare_kernel(self, choice: Lanes, target: KernelTarget) -> tirx.PrimFunc:
        epilogue = bare_epilogue(self.outputs, self.pool.window.out_shape, self.pool.dtype)
        return pooling_kernel(self.pool, epilogue, choice)
