"""No assumption but that the compiler can count the bits of a byte: right everywhere, fast nowhere."""

from schedules.geometry import Convolution
from schedules.targets.dot_products import PLAIN
from schedules.targets.family import Family
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(pixels=1, lanes=lanes_for(conv.out_channels // conv.groups, 32, 16), quantum=16)


def float_tile(conv: Convolution) -> Tile:
    return Tile(pixels=2, lanes=lanes_for(conv.out_channels // conv.groups, 8, 4), quantum=4)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(pixels=8, lanes=lanes_for(conv.out_channels, 16, 4), quantum=4)


GENERIC = KernelTarget(
    name="generic",
    word=8,
    binary_tile=binary_tile,
    float_tile=float_tile,
    winograd_tile=winograd_tile,
    dot=PLAIN,
)

FAMILY = Family(
    kernels=GENERIC,
    machine="",
)
