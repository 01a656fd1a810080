"""64-bit NEON: 32 registers of 16 bytes, a lane of 16 bits an output channel: `dup`, `eor`, `cnt`, `uadalp`.

`uadalp` adds the counts of two neighbouring bytes to a 16-bit sum: nothing overflows and nothing is widened.
Where a run of words fills enough whole vectors, a tile sums along the channels, 4 pixels and 4 outputs at a
time: 16 sums, 4 activations and a weight in registers. Otherwise it sums across them, 2 pixels and 64 outputs
at a time: 16 sums, 8 weights and 2 times 8 activations. `dup` broadcasts one of those, which takes a vector
pipe on most cores, so that it had better serve many outputs.
"""

from dataclasses import replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution, counts_in_16_bits
from schedules.targets.dot_products import fixed_tile, long_products, reinterpreted
from schedules.targets.family import Family
from schedules.targets.kernel_target import DotProduct, KernelTarget, Tile, lanes_for

# Operations of one kind in a row: enough for the latency of each, 4 cycles of a core that works in order, and
# few enough that their results fit into registers beside 16 sums.
_SIDE_BY_SIDE = 8


def binary_tile(conv: Convolution) -> Tile:
    out_channels, channels = conv.out_channels // conv.groups, conv.channels // conv.groups
    if channels % 128 == 0 and channels >= 256 and counts_in_16_bits(conv.products):
        steps = _steps_along(conv)
        # A run is written out as a whole; of a long one only so much, or the registers spill.
        unroll = steps if steps <= 12 else next(n for n in (4, 3, 2, 1) if steps % n == 0)
        return Tile(pixels=4, lanes=lanes_for(out_channels, 32, 8), quantum=4, depth=8, unroll=unroll)
    lanes = lanes_for(out_channels, 64, 8)
    pixels = 2 if lanes > 32 else 4
    return Tile(pixels=pixels, lanes=lanes, quantum=8, abreast=_SIDE_BY_SIDE // pixels)


def in_order_tile(conv: Convolution) -> Tile:
    """Of a core that works in order: where a run is written out as a whole, LLVM takes its groups apart."""
    tile = binary_tile(conv)
    if tile.depth == 1:
        return tile
    unroll = 2 if _steps_along(conv) % 2 == 0 else 1
    return replace(tile, unroll=unroll, abreast=_SIDE_BY_SIDE // tile.pixels)


def _steps_along(conv: Convolution) -> int:
    """Vectors of 128 bits in a run of words."""
    return conv.taps_in_a_run * (conv.channels // conv.groups) // 128


def float_tile(conv: Convolution) -> Tile:
    return Tile(pixels=4, lanes=lanes_for(conv.out_channels // conv.groups, 16, 4), quantum=4)


def half_tile(conv: Convolution) -> Tile:
    out_channels = conv.out_channels // conv.groups
    # Eight pixels share what is read of the weights; fewer leave registers for more channels.
    if conv.out_width < 4:
        return Tile(pixels=4, lanes=lanes_for(out_channels, 32, 8), quantum=8)
    return Tile(pixels=8, lanes=lanes_for(out_channels, 16, 8), quantum=8)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(pixels=16, lanes=lanes_for(conv.out_channels, 16, 4), quantum=4)


def _sdot(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
    a, w = (reinterpreted("int8x16", word) for (word,) in (activations, weights))
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", sums, w, a)


SDOT = DotProduct(word=32, lanes=4, together=4, tile=fixed_tile(4, 16, 4), add=_sdot)
"""`sdot` by element: four products to a sum, the activations read from a lane of a register."""


def _sadalp(sums: Any, products: Any) -> Any:
    return sums + T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", products)


LONG = DotProduct(
    word=16, lanes=8, together=2, at_once=2, tile=fixed_tile(4, 16, 8), add=long_products(_sadalp)
)

# What stands for a core in LLVM's models of cores: its tables for these are those of a Cortex-A57, and the
# nearest core that has its own is another.
MODELLED_AS = dict.fromkeys(("cortex-a76", "cortex-a77", "cortex-a78", "cortex-x1"), "neoverse-n1")
MODELLED_AS["generic"] = "cortex-a53"

AARCH64_NEON = KernelTarget(
    name="aarch64_neon",
    word=16,
    together=8,
    binary_tile=binary_tile,
    float_tile=float_tile,
    winograd_tile=winograd_tile,
    half_tile=half_tile,
    dot=LONG,
    sums_apart=True,
    side_by_side=_SIDE_BY_SIDE,
    registers=32,
)

FAMILY = Family(
    kernels=AARCH64_NEON,
    machine="aarch64",  # all of them have NEON
    telling=frozenset({"neon", "dotprod", "fullfp16"}),
    dots={"dotprod": SDOT},
    half_needs="fullfp16",
    binary_tiles={"cortex-a55": in_order_tile},
)
