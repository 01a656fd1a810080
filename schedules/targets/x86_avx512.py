"""AVX-512 with VPOPCNTDQ: 32 registers of 16 words; a broadcast folds into the xor as a memory operand."""

from schedules.convolution import Convolution
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for, pixels_for


def binary_tile(conv: Convolution) -> Tile:
    if conv.channels // conv.groups <= 8:  # bytes
        return Tile(pixels_for(conv.out_width, 4), lanes_for(conv.out_channels // conv.groups, 64, 16), 16)
    return Tile(pixels_for(conv.out_width, 7), lanes_for(conv.out_channels // conv.groups, 32, 16), 16)


def float_tile(conv: Convolution) -> Tile:
    return Tile(pixels_for(conv.out_width, 4), lanes_for(conv.out_channels // conv.groups, 64, 16), 16)


X86_AVX512 = KernelTarget("x86_avx512", 32, 1, binary_tile, float_tile)
