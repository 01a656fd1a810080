"""What is tuned: one kernel with choices, named by all that its best tile depends on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from schedules.geometry import Convolution
from schedules.parts.bits import Packing
from schedules.parts.borders import Ending
from schedules.parts.epilogue import Epilogue


@dataclass(frozen=True, kw_only=True)
class KernelTask:
    """The element-wise steps before the outputs cost the same in every tile and are not part of the key, so
    that networks share records which differ in a scaling factor or an activation."""

    conv: Convolution
    packing: Packing | None = None  # of the activations, None where they are float
    ending: Ending = "dot"  # what the epilogue gets for a sum
    # Of each tensor that the kernel writes, its dtype, after `planar` where it is [N, C, H, W], and how its
    # bits are packed where it holds bits.
    outputs: tuple[tuple[str, Packing | None], ...]
    planar: bool = False  # the activations are [N, C, H, W]

    @property
    def kind(self) -> str:
        return "binary_convolution" if self.packing else "float_convolution"

    @property
    def key(self) -> str:
        """Canonical JSON. Of bytes that are written it says so, and not what they stand for."""
        fields = asdict(self)
        for packing in (fields["packing"], *(packing for _, packing in fields["outputs"])):
            if packing and packing.pop("quantizer"):
                packing["bits"] = 8
        return json.dumps({"kind": self.kind, **fields}, sort_keys=True, separators=(",", ":"))

    @property
    def title(self) -> str:
        conv = self.conv
        kernel, strides = ("x".join(map(str, pair)) for pair in (conv.kernel, conv.strides))
        what = "float" if self.packing is None else "binary"
        stride = f" / {strides}" if conv.strides != (1, 1) else ""
        image = f"{conv.height}x{conv.width}x{conv.channels}"
        written = "+".join("bits" if packing else "floats" for _, packing in self.outputs)
        return f"{what} {kernel}{stride}, {image} to {conv.out_channels}, {written}"


def outputs_of(epilogue: Epilogue) -> tuple[tuple[str, Packing | None], ...]:
    return tuple(("planar " * output.planar + output.dtype, output.packing) for output in epilogue.outputs)
