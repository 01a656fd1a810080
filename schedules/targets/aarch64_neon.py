"""64-bit NEON: 32 registers of 16 bytes, a lane of 16 bits an output channel: `dup`, `eor`, `cnt`, `uadalp`.

`uadalp` adds the counts of two neighbouring bytes to a 16-bit sum: nothing overflows and nothing is widened.
Where a run of words fills enough whole vectors, a tile sums along the channels, 4 pixels and 4 outputs at a
time: 16 sums, 4 activations and a weight in registers. Otherwise it sums across them, 2 pixels and 64 outputs
at a time: 16 sums, 8 weights and 2 times 8 activations. `dup` broadcasts one of those, which takes a vector
pipe on most cores, so that it had better serve many outputs.
"""

from schedules.geometry import Convolution
from schedules.targets.dot_products import NEON_LONG
from schedules.targets.kernel_target import KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    out_channels, channels = conv.out_channels // conv.groups, conv.channels // conv.groups
    if channels % 128 == 0 and channels >= 256 and conv.products <= 65535:
        steps = conv.taps_in_a_run * channels // 128
        # A run is written out as a whole; of a long one only so much, or the registers spill.
        unroll = steps if steps <= 12 else next(n for n in (4, 3, 2, 1) if steps % n == 0)
        return Tile(4, lanes_for(out_channels, 32, 8), 4, depth=8, unroll=unroll)
    lanes = lanes_for(out_channels, 64, 8)
    return Tile(2 if lanes > 32 else 4, lanes, 8)


def float_tile(conv: Convolution) -> Tile:
    return Tile(4, lanes_for(conv.out_channels // conv.groups, 16, 4), 4)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(16, lanes_for(conv.out_channels, 16, 4), 4)


AARCH64_NEON = KernelTarget(
    "aarch64_neon", 16, 8, binary_tile, float_tile, winograd_tile, NEON_LONG, registers=32
)
