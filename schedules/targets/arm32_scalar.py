"""32-bit Arm without vectors, such as most of Cortex-M: 13 registers of 32 bits, and no instruction that
counts bits.

LLVM counts those of a word in 12 instructions, and those of a byte in nearly as many: so the widest words are
read that channels fill. Everything else is generic.
"""

from dataclasses import replace

from schedules.geometry import Convolution, counts_in_16_bits
from schedules.targets.family import Family
from schedules.targets.generic import GENERIC
from schedules.targets.kernel_target import Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    """Eight outputs of a pixel, which fill a byte of the next layer's activations."""
    group = conv.channels // conv.groups
    word = 32 if group % 32 == 0 else 16 if group % 16 == 0 and counts_in_16_bits(conv.products) else 8
    return Tile(pixels=1, lanes=lanes_for(conv.out_channels // conv.groups, 8, 8), quantum=8, word=word)


ARM32_SCALAR = replace(GENERIC, name="arm32_scalar", binary_tile=binary_tile, registers=13)

FAMILY = Family(
    kernels=ARM32_SCALAR,
    machine="armv",
    lacks=frozenset({"mve"}),  # of which LLVM makes vectors
)
