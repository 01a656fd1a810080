"""AVX2: 16 registers of 32 bytes; LLVM makes two table look-ups (`vpshufb`) of the popcount of a byte."""

from schedules.geometry import Convolution
from schedules.targets.dot_products import AVX2_PAIRS
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(2, lanes_for(conv.out_channels // conv.groups, 64, 32), 32)


def float_tile(conv: Convolution) -> Tile:
    return Tile(4, lanes_for(conv.out_channels // conv.groups, 16, 8), 8)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(24, lanes_for(conv.out_channels, 16, 8), 8)


X86_AVX2 = KernelTarget("x86_avx2", 8, 1, binary_tile, float_tile, winograd_tile, AVX2_PAIRS, vector_bits=256)
