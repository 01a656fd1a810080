"""AVX2: 16 registers of 32 bytes; LLVM makes two table look-ups (`vpshufb`) of the popcount of a byte."""

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.targets.dot_products import fixed_tile, pairs
from schedules.targets.family import Family
from schedules.targets.kernel_target import DotProduct, KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(pixels=2, lanes=lanes_for(conv.out_channels // conv.groups, 64, 32), quantum=32)


def paired_tile(conv: Convolution) -> Tile | None:
    # Activations are prepared for each output pixel, which few output channels do not pay for, and few
    # products leave the counts that are left at the end as much to do as the pairs.
    out_channels = conv.out_channels // conv.groups
    if conv.channels // conv.groups % 32 or out_channels < 64 or conv.products < 512:
        return None
    # More pixels share what is read of the weights, and do not fit the registers: measured, no faster.
    return Tile(pixels=1, lanes=32, quantum=8, word=32)


def add_bytes(counts: Any) -> Any:
    """uint8x32 -> int32x8. `vpmaddubsw` with ones adds two bytes, `vpmaddwd` two of these sums."""
    ones = [T.broadcast(tirx.const(1, dtype), lanes) for dtype, lanes in (("int8", 32), ("int16", 16))]
    twos = T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", counts, ones[0])
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", twos, ones[1])


def float_tile(conv: Convolution) -> Tile:
    return Tile(pixels=6, lanes=lanes_for(conv.out_channels // conv.groups, 16, 8), quantum=8)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(pixels=24, lanes=lanes_for(conv.out_channels, 16, 8), quantum=8)


PAIRS = DotProduct(word=16, lanes=8, tile=fixed_tile(4, 16, 8), add=pairs("llvm.x86.avx2.pmadd.wd", 8))
"""`vpmaddwd`: two products of int16 to a sum. (`vpmaddubsw` has four of bytes, and saturates.)"""

X86_AVX2 = KernelTarget(
    name="x86_avx2",
    word=8,
    binary_tile=binary_tile,
    paired_tile=paired_tile,
    add_bytes=add_bytes,
    float_tile=float_tile,
    winograd_tile=winograd_tile,
    dot=PAIRS,
    vector_bits=256,
    binary_rate=300,
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
