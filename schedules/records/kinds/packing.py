"""Packing that no kernel before it took in, of images channels last and plane by plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from tvm import tirx

from schedules.kernels import packing, planar_packing
from schedules.parts.epilogue import Epilogue, Output, Step, Value
from schedules.parts.planes import square
from schedules.records.kernel_task import KernelTask
from schedules.records.lane_space import fewer_or_more, refusal_of_lanes
from schedules.targets.kernel_target import KernelTarget, Lanes

_LAST, _PLANAR = "packing", "planar_packing"


@dataclass(frozen=True, kw_only=True)
class PackingTask(KernelTask[Lanes]):
    """Here the element-wise steps are the kernel, and are named. extents: [N, H, W, C], or with `planar`
    [N, C, H, W] or [N, C, L]; operands: shape and dtype of each that is read; steps: their operators."""

    choice = Lanes
    kinds = (_LAST, _PLANAR)

    extents: tuple[int, ...]
    planar: bool
    operands: tuple[tuple[tuple[int, ...], str], ...]
    steps: tuple[str, ...]

    @property
    def kind(self) -> str:
        return _PLANAR if self.planar else _LAST

    @property
    def title(self) -> str:
        ((_, packed),) = self.outputs
        what = "bytes" if packed and packed.quantizer else "bits"
        where = " of planes" if self.planar else ""
        return f"packing{where}, {'x'.join(map(str, self.extents[1:]))} to {what}"

    @property
    def _channels(self) -> int:
        return self.extents[1 if self.planar else 3]

    def default(self, target: KernelTarget) -> Lanes:
        return planar_packing.LANES if self.planar else packing.LANES

    def refusal(self, choice: Lanes) -> str | None:
        if not self.planar and choice.together != 1:
            return "channels that lie side by side are packed one after the other"
        if self.planar:
            lanes_are_right = choice.lanes in (1, 2, 4, 8, 16, 32, 64)
            return None if lanes_are_right and 1 <= choice.together <= 16 else "no vectors have such lanes"
        return refusal_of_lanes(choice, self._channels, self.outputs)

    def candidates(self, target: KernelTarget) -> list[Lanes]:
        default = self.default(target)
        ((_, packed),) = self.outputs
        assert packed is not None
        if packed.groups > 1 and not self.planar and not packed.byte_a_channel:
            return [default]  # groups that end within a word are packed channel by channel
        if self.planar:
            found = [default, *self._of_planes(target)]
        else:
            found = fewer_or_more(default, target.floats, self._channels)
        return [lanes for lanes in dict.fromkeys(found) if self.refusal(lanes) is None]

    def _of_planes(self, target: KernelTarget) -> Iterator[Lanes]:
        ((_, packed),) = self.outputs
        assert packed is not None
        pixels = prod(self.extents[2:])
        # Where a byte is a channel, as many of these as pixels are turned at a time.
        lanes = (4, 8, 16) if packed.byte_a_channel else (8, 16, 32, 64)
        for most in lanes:
            if most > square(pixels, most):
                continue
            for together in (1,) if packed.byte_a_channel else (1, 2, 4, 8):
                if most * together <= min(pixels, 16 * target.floats):
                    yield Lanes(lanes=most, together=together)

    def kernel(self, choice: Lanes, epilogue: Epilogue) -> tirx.PrimFunc:
        if self.planar:
            return planar_packing.planar_packing_kernel(self.extents, epilogue, choice)
        batch, height, width, channels = self.extents
        return packing.packing_kernel((batch, height, width, channels), epilogue, choice)

    def bare_kernel(self, choice: Lanes, target: KernelTarget) -> tirx.PrimFunc:
        return self.kernel(choice, self._bare())

    def _bare(self) -> Epilogue:
        """The sign, or the byte, of the sum of all that is read."""
        ((dtype, packed),) = self.outputs
        assert packed is not None
        read = tuple(o for o in self.operands if _broadcasts(o[0], self.extents))
        steps: list[Step] = []

        def step(op: str, *inputs: Value, **attributes: str) -> Value:
            steps.append(Step(op, inputs, attributes))
            return Value("step", len(steps) - 1)

        total = Value("number", number=0.0)
        for i, (_, kind) in enumerate(read):
            value = Value("operand", i)
            if kind == "bool":
                value = step("relax.where", value, Value("number", number=1.0), Value("number", number=0.0))
            elif kind != "float32":
                value = step("relax.astype", value, dtype="float32")
            total = step("relax.add", total, value) if i else value
        if packed.quantizer:
            packed = replace(packed, quantizer=replace(packed.quantizer, scale=1.0))
        else:
            total = step("relax.greater_equal", total, Value("number", number=0.0))
        batch, height, width = self.extents[:3]
        if self.planar:
            height, width = (1, *self.extents[2:])[-2:]
        output = Output(total, packed.shape(batch, height, width), dtype, packed)
        return Epilogue(read, tuple(steps), (output,))


def _broadcasts(shape: tuple[int, ...], extents: tuple[int, ...]) -> bool:
    """A border's table does not, of which a few numbers are read."""
    pairs = zip(reversed(shape), reversed(extents), strict=False)
    return len(shape) <= len(extents) and all(a in (1, b) for a, b in pairs)
