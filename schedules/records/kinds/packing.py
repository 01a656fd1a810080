"""Packing of images that lie plane by plane, which no kernel before it took in.

Channels last there is nothing to choose: how many channels follow each other in a loop makes no difference,
since they are written in vectors of one width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from tvm import tirx

from schedules.kernels.planar_packing import default_lanes, planar_packing_kernel
from schedules.parts.bits import Packing
from schedules.parts.epilogue import Epilogue, Output, Step, Value
from schedules.parts.planes import square
from schedules.records.kernel_task import KernelTask
from schedules.targets.kernel_target import KernelTarget, Lanes

_WIDTHS = (4, 8, 16, 32, 64)
_MOST_TOGETHER = 16


@dataclass(frozen=True, kw_only=True)
class PlanarPackingTask(KernelTask[Lanes]):
    """Here the element-wise steps are the kernel, and are named. extents: [N, C, H, W] or [N, C, L];
    operands: shape and dtype of each that is read; steps: their operators."""

    choice = Lanes
    kinds = ("planar_packing",)

    extents: tuple[int, ...]
    operands: tuple[tuple[tuple[int, ...], str], ...]
    steps: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "planar_packing"

    @property
    def title(self) -> str:
        return f"packing of planes, {'x'.join(map(str, self.extents[1:]))} to bits"

    @property
    def _packing(self) -> Packing:
        ((_, packing),) = self.outputs
        assert packing is not None
        return packing

    def default(self, target: KernelTarget) -> Lanes:
        return default_lanes(self._packing, target)

    def refusal(self, choice: Lanes) -> str | None:
        if choice.lanes not in _WIDTHS:
            return f"vectors have no {choice.lanes} lanes"
        return (
            None if 1 <= choice.together <= _MOST_TOGETHER else "it is larger than any processor could hold"
        )

    def candidates(self, target: KernelTarget) -> list[Lanes]:
        return list(dict.fromkeys([self.default(target), *self._worth_a_trial(target)]))

    def _worth_a_trial(self, target: KernelTarget) -> Iterator[Lanes]:
        pixels = prod(self.extents[2:])
        # Where each channel has a byte, squares of channels and pixels are turned, one after the other.
        alone = self._packing.byte_a_channel
        for lanes in (4, 8, 16) if alone else (8, 16, 32, 64):
            for together in (1,) if alone else (1, 2, 4, 8):
                fits = lanes * together <= min(pixels, _MOST_TOGETHER * target.floats)
                if fits and lanes == square(pixels, lanes):
                    yield Lanes(lanes=lanes, together=together)

    def bare_kernel(self, choice: Lanes, target: KernelTarget) -> tirx.PrimFunc:
        """The sign of the sum of all that is read."""
        read = tuple(o for o in self.operands if _broadcasts(o[0], self.extents))
        steps: list[Step] = []

        def step(op: str, *inputs: Value, **attributes: str) -> Value:
            steps.append(Step(op, inputs, attributes))
            return Value("step", len(steps) - 1)

        zero, one = Value("number", number=0.0), Value("number", number=1.0)
        total = zero
        for i, (_, dtype) in enumerate(read):
            value = Value("operand", i)
            if dtype == "bool":
                value = step("relax.where", value, one, zero)
            elif dtype != "float32":
                value = step("relax.astype", value, dtype="float32")
            total = step("relax.add", total, value) if i else value
        truth = step("relax.greater_equal", total, zero)
        packing, (height, width) = self._packing, (1, *self.extents[2:])[-2:]
        output = Output(truth, packing.shape(self.extents[0], height, width), packing.dtype, packing)
        epilogue = Epilogue(read, tuple(steps), (output,))
        return planar_packing_kernel(self.extents, epilogue, choice, target.plane_word)


def _broadcasts(shape: tuple[int, ...], extents: tuple[int, ...]) -> bool:
    """A border's table does not, of which a few numbers are read."""
    pairs = zip(reversed(shape), reversed(extents), strict=False)
    return len(shape) <= len(extents) and all(a in (1, b) for a, b in pairs)
