"""No assumption but that the compiler can count the bits of a byte: right everywhere, fast nowhere."""

from schedules.geometry import Convolution
from schedules.targets.dot_products import PLAIN
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(1, lanes_for(conv.out_channels // conv.groups, 32, 16), 16)


def float_tile(conv: Convolution) -> Tile:
    return Tile(2, lanes_for(conv.out_channels // conv.groups, 8, 4), 4)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(8, lanes_for(conv.out_channels, 16, 4), 4)


GENERIC = KernelTarget("generic", 8, 1, binary_tile, float_tile, winograd_tile, PLAIN)
