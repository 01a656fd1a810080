"""64-bit NEON: 32 registers of 16 bytes, a lane of 16 bits an output channel: `dup`, `eor`, `cnt`, `uadalp`.

`uadalp` adds the counts of two neighbouring bytes to a 16-bit sum: nothing overflows and nothing is widened.
A tile of 4 x 32 holds 16 sums, 4 weights and 4 times 8 activations in registers; `dup` broadcasts one of
those.
"""

from schedules.geometry import Convolution
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(4, lanes_for(conv.out_channels // conv.groups, 32, 8), 8)


def float_tile(conv: Convolution) -> Tile:
    return Tile(4, lanes_for(conv.out_channels // conv.groups, 16, 4), 4)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(16, lanes_for(conv.out_channels, 16, 4), 4)


AARCH64_NEON = KernelTarget("aarch64_neon", 16, 8, binary_tile, float_tile, winograd_tile)
