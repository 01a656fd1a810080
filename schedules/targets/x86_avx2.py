"""AVX2: 16 registers of 32 bytes; a look-up of bytes (`vpshufb`), of which LLVM makes two of a popcount."""

from typing import Any

from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.targets.dot_products import fixed_tile, pairs, reinterpreted
from schedules.targets.family import Family
from schedules.targets.kernel_target import DotProduct, KernelTarget, Lanes, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(pixels=2, lanes=lanes_for(conv.out_channels // conv.groups, 64, 32), quantum=32)


def table_tile(conv: Convolution) -> Tile | None:
    if conv.batch * conv.out_height * conv.out_width == 1:
        return None  # weights that are read once, and are twice as many bytes
    lanes = lanes_for(conv.out_channels // conv.groups, 64, 32)
    # One vector of sums a pixel leaves registers for more pixels, which pay where the steps make a loop.
    pixels = 8 if lanes == 32 and conv.products >= 96 else 4
    return Tile(pixels=pixels, lanes=lanes, quantum=32, word=4)


def look_up(table: Any, index: Any) -> Any:
    """`vpshufb`, of each half of a register by itself."""
    of_bytes = (reinterpreted("int8x32", value) for value in (table, index))
    return reinterpreted("uint8x32", T.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.pshuf.b", *of_bytes))


def float_tile(conv: Convolution) -> Tile:
    # Neighbours in an image of few channels, which lies plane by plane, share taps of a loop that LLVM writes
    # out. It keeps what they share in registers, and beside the sums of 6 pixels there are none left.
    shared = conv.channels <= 4 and conv.kernel[1] > conv.strides[1]
    pixels = 4 if shared else 6
    return Tile(pixels=pixels, lanes=lanes_for(conv.out_channels // conv.groups, 16, 8), quantum=8)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(pixels=24, lanes=lanes_for(conv.out_channels, 16, 8), quantum=8)


PAIRS = DotProduct(word=16, lanes=8, tile=fixed_tile(4, 16, 8), add=pairs("llvm.x86.avx2.pmadd.wd", 8))
"""`vpmaddwd`: two products of int16 to a sum. (`vpmaddubsw` has four of bytes, and saturates.)"""

X86_AVX2 = KernelTarget(
    name="x86_avx2",
    word=8,
    binary_tile=binary_tile,
    table_tile=table_tile,
    look_up=look_up,
    float_tile=float_tile,
    winograd_tile=winograd_tile,
    dot=PAIRS,
    plane_lanes=Lanes(lanes=16),
    plane_word=32,
    vector_bits=256,
    binary_rate=500,
    float_rate=40,
    byte_rate=30,
)

FAMILY = Family(
    kernels=X86_AVX2,
    machine="x86_64",
    needs=frozenset({"avx2"}),
    telling=frozenset({"avx2"}),
    cpu="x86-64-v3",
    least_cpu="x86-64",
)
