"""The tile of a float layer with a few output channels, which do not fill a vector: an image at the end of a
network, a mask, an attention that is one number a pixel."""

from __future__ import annotations

from schedules.geometry import Convolution
from schedules.targets.kernel_target import KernelTarget, Tile

_SHORT = 4  # vectors of a sum, beside which adding up their lanes is as much


def tile_of_few_channels(conv: Convolution, target: KernelTarget) -> Tile | None:
    """One whose vectors hold parts of one sum; None where those that hold sums of neighbours are fuller, and
    where vectors do not divide what lies together in memory. Its weights are floats, its activations channels
    last."""
    lanes, channels = target.floats, conv.out_channels // conv.groups
    run = conv.taps_in_a_run * (conv.channels // conv.groups)
    if 2 * channels > lanes or run % lanes or conv.products < _SHORT * lanes:
        return None
    held = (target.registers - 2) // (channels + 1)
    pixels = max(1, min(8, held, conv.out_height * conv.out_width))
    return Tile(pixels=pixels, lanes=channels, quantum=channels, depth=lanes)
