"""32-bit NEON: 16 registers of 16 bytes, otherwise as aarch64_neon."""

from schedules.geometry import Convolution
from schedules.targets.dot_products import ARM32_LONG
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(2, lanes_for(conv.out_channels // conv.groups, 32, 8), 8)


def float_tile(conv: Convolution) -> Tile:
    return Tile(1, lanes_for(conv.out_channels // conv.groups, 16, 4), 4)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(8, lanes_for(conv.out_channels, 16, 4), 4)


ARM32_NEON = KernelTarget("arm32_neon", 16, 4, binary_tile, float_tile, winograd_tile, ARM32_LONG)
