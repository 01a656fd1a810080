"""AVX-512 with VPOPCNTDQ: 32 registers of 16 words; a broadcast folds into the xor as a memory operand."""

from schedules.geometry import Convolution
from schedules.targets.dot_products import AVX512_PAIRS
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for

L2_BYTES = 1 << 20


def binary_tile(conv: Convolution) -> Tile:
    out_channels = conv.out_channels // conv.groups
    if conv.channels // conv.groups <= 8:  # bytes
        return Tile(4, lanes_for(out_channels, 64, 16), 16)
    pixels = min(conv.out_width, 7)
    # Few pixels leave registers for more channels, and need them to hide the latency of a sum.
    most = 32 if pixels > 2 else 64
    return Tile(pixels, lanes_for(out_channels, most, 16), 16)


def float_tile(conv: Convolution) -> Tile:
    return Tile(4, lanes_for(conv.out_channels // conv.groups, 64, 16), 16)


def winograd_tile(conv: Convolution) -> Tile | None:
    few_products = conv.kernel[0] * conv.channels * conv.strides[1] < 16
    if few_products and 4 * conv.batch * conv.out_height * conv.out_width * conv.out_channels > L2_BYTES:
        return None  # measured: writing the outputs takes the time, and the direct kernel writes evenly
    return Tile(48, lanes_for(conv.out_channels, 32, 16), 16)


X86_AVX512 = KernelTarget(
    "x86_avx512", 32, 1, binary_tile, float_tile, winograd_tile, AVX512_PAIRS, vector_bits=512, registers=32
)
