"""32-bit NEON: 16 registers of 16 bytes, otherwise as aarch64_neon."""

from schedules.convolution import Convolution
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for, pixels_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(1, lanes_for(conv.out_channels // conv.groups, 64, 16), 16)


def float_tile(conv: Convolution) -> Tile:
    return Tile(pixels_for(conv.out_width, 4), lanes_for(conv.out_channels // conv.groups, 8, 4), 4)


ARM32_NEON = KernelTarget("arm32_neon", 8, binary_tile, float_tile)
