"""64-bit NEON: 32 registers of 16 bytes. `ld1r` broadcasts an activation's byte, then `eor`, `cnt`, `add`."""

from schedules.geometry import Convolution
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(4, lanes_for(conv.out_channels // conv.groups, 32, 8), 8)


def float_tile(conv: Convolution) -> Tile:
    return Tile(4, lanes_for(conv.out_channels // conv.groups, 16, 4), 4)


AARCH64_NEON = KernelTarget("aarch64_neon", 16, 8, binary_tile, float_tile)
