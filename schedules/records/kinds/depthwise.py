"""Depthwise convolutions, of bits, bytes and floats."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from tvm import tirx

from schedules.geometry import Convolution
from schedules.kernels.depthwise import Strip, default_strip, depthwise_convolution
from schedules.parts.bits import Packing
from schedules.parts.borders import Ending
from schedules.records.bare_epilogue import bare_epilogue
from schedules.records.kernel_task import KernelTask, said_of
from schedules.records.tile_space import unfilled
from schedules.targets.kernel_target import KernelTarget

_BINARY, _INT8, _FLOAT = (f"{numbers}_depthwise_convolution" for numbers in ("binary", "int8", "float"))
_MOST_LANES = 512
_MOST_PIXELS = 16


@dataclass(frozen=True, kw_only=True)
class DepthwiseTask(KernelTask[Strip]):
    """packing: of the activations, None where they are float; ending: what the epilogue gets for a sum."""

    choice = Strip
    kinds = (_BINARY, _INT8, _FLOAT)

    conv: Convolution
    packing: Packing | None = None
    ending: Ending = "dot"

    @property
    def kind(self) -> str:
        if self.packing is None:
            return _FLOAT
        return _INT8 if self.packing.quantizer else _BINARY

    @property
    def exact(self) -> bool:
        return self.packing is not None

    @property
    def title(self) -> str:
        return said_of(self.kind.removesuffix("_convolution").replace("_", " "), self.conv, self.outputs)

    @property
    def _taps(self) -> int:
        return self.conv.kernel[0] * self.conv.kernel[1]

    def default(self, target: KernelTarget) -> Strip:
        word = max((packing.per_word for _, packing in self.outputs if packing), default=1)
        return default_strip(self.conv, self.packing, target, word)

    def refusal(self, strip: Strip) -> str | None:
        if not (1 <= strip.pixels <= _MOST_PIXELS and 1 <= strip.lanes <= _MOST_LANES):
            return "it is larger than any processor could hold"
        if not 1 <= strip.unroll <= self._taps:
            return f"{strip.unroll} of {self._taps} taps cannot be written out"
        return unfilled(self.outputs, strip.lanes) if self.conv.out_channels > strip.lanes else None

    def candidates(self, target: KernelTarget) -> list[Strip]:
        conv, default = self.conv, self.default(target)
        found = [default]
        vector = target.vector_bits // (8 if self.packing else 32)
        channels = -(-conv.out_channels // vector)
        by_rows = self.packing is None and any(conv.padding)
        most = conv.kernel[1] if by_rows else self._taps
        unrolls = dict.fromkeys([1, *([conv.kernel[1], most] if self._taps <= 49 else [])])
        for pixels, vectors, unroll in product((1, 2, 3, 4, 6, 7, 8), (1, 2, 4, 8), unrolls):
            lanes = min(vectors * vector, conv.out_channels)
            if pixels > conv.out_width or vectors >= 2 * channels:
                continue
            # Sums of bytes are widened where counts are, so that only floats say how many fit.
            if pixels * vectors <= target.registers:
                found.append(Strip(pixels=pixels, lanes=lanes, unroll=unroll))
        return [strip for strip in dict.fromkeys(found) if self.refusal(strip) is None]

    def bare_kernel(self, strip: Strip, target: KernelTarget) -> tirx.PrimFunc:
        sums = "float32" if self.packing is None else "bool" if self.ending == "truth" else "int32"
        epilogue = bare_epilogue(self.outputs, self.conv.out_shape, sums)
        return depthwise_convolution(self.conv, self.packing, epilogue, ending=self.ending, strip=strip)
