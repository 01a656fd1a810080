"""The maximum or average of windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx

from schedules.kernels.pooling import LANES, Pooling, pooling_kernel
from schedules.records.bare_epilogue import bare_epilogue
from schedules.records.kernel_task import KernelTask, said_of_outputs
from schedules.records.tile_space import unfilled
from schedules.targets.kernel_target import KernelTarget, Lanes

_MOST_LANES = 512


@dataclass(frozen=True, kw_only=True)
class PoolingTask(KernelTask[Lanes]):
    choice = Lanes
    kinds = ("pooling",)

    pool: Pooling

    @property
    def kind(self) -> str:
        return "pooling"

    def _fields(self) -> dict[str, Any]:
        """Records are older than pools of words of bits."""
        fields = super()._fields()
        pool = {name: value for name, value in fields["pool"].items() if name != "of_bits" or value}
        return {**fields, "pool": pool}

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
        if not 1 <= choice.lanes <= _MOST_LANES:
            return "it is larger than any processor could hold"
        return unfilled(self.outputs, choice.lanes) if self.pool.window.channels > choice.lanes else None

    def candidates(self, target: KernelTarget) -> list[Lanes]:
        channels, vector = self.pool.window.channels, target.vector_bits // tvm.DataType(self.pool.dtype).bits
        found = {min(LANES.lanes, channels): LANES}  # all that hold every channel are the same
        for lanes in (vector * count for count in (1, 2, 4, 8, 16)):
            found.setdefault(min(lanes, channels), Lanes(lanes=lanes))
        return [lanes for lanes in found.values() if self.refusal(lanes) is None]

    def bare_kernel(self, choice: Lanes, target: KernelTarget) -> tirx.PrimFunc:
        epilogue = bare_epilogue(self.outputs, self.pool.window.out_shape, self.pool.dtype)
        return pooling_kernel(self.pool, epilogue, choice)
