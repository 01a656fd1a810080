"""AVX-512 with VPOPCNTDQ: 32 registers of 16 words; a broadcast folds into the xor as a memory operand."""

from typing import Any

from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.targets.dot_products import fixed_tile, pairs, reinterpreted
from schedules.targets.family import Family
from schedules.targets.kernel_target import DotProduct, KernelTarget, Tile, lanes_for

L2_BYTES = 1 << 20


def binary_tile(conv: Convolution) -> Tile:
    out_channels = conv.out_channels // conv.groups
    if conv.channels // conv.groups <= 8:  # bytes
        return Tile(pixels=4, lanes=lanes_for(out_channels, 64, 16), quantum=16)
    pixels = min(conv.out_width, 7)
    # Few pixels leave registers for more channels, and need them to hide the latency of a sum.
    most = 32 if pixels > 2 else 64
    return Tile(pixels=pixels, lanes=lanes_for(out_channels, most, 16), quantum=16)


def float_tile(conv: Convolution) -> Tile:
    return Tile(pixels=4, lanes=lanes_for(conv.out_channels // conv.groups, 64, 16), quantum=16)


def winograd_tile(conv: Convolution) -> Tile | None:
    few_products = conv.kernel[0] * conv.channels * conv.strides[1] < 16
    if few_products and 4 * conv.batch * conv.out_height * conv.out_width * conv.out_channels > L2_BYTES:
        return None  # measured: writing the outputs takes the time, and the direct kernel writes evenly
    if conv.kernel[1] < 2 * conv.strides[1]:
        return None  # measured: two taps a phase save so little that where memory lies decides
    return Tile(pixels=48, lanes=lanes_for(conv.out_channels, 32, 16), quantum=16)


PAIRS = DotProduct(
    word=16, lanes=16, tile=fixed_tile(4, 64, 16), add=pairs("llvm.x86.avx512.pmaddw.d.512", 16)
)
"""`vpmaddwd`, as with AVX2."""


def _vnni(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
    a, w = (reinterpreted("int8x64", word) for (word,) in (activations, weights))
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", sums, a, w)


def _vnni_tile(conv: Convolution) -> Tile:
    # Rows of 7 leave no rest; one pixel wants many channels, which hide the latency of a sum.
    pixels, most = (7, 32) if 4 < conv.out_width <= 7 else (4, 64)
    return Tile(pixels=pixels, lanes=lanes_for(conv.out_channels // conv.groups, most, 16), quantum=16)


VNNI = DotProduct(word=32, zero_point=128, lanes=16, tile=_vnni_tile, add=_vnni)
"""`vpdpbusd`: four products of an unsigned byte and a signed one to a sum."""

X86_AVX512 = KernelTarget(
    name="x86_avx512",
    word=32,
    binary_tile=binary_tile,
    float_tile=float_tile,
    winograd_tile=winograd_tile,
    dot=PAIRS,
    vector_bits=512,
    binary_rate=2000,
    float_rate=100,
    byte_rate=60,
    registers=32,
)

FAMILY = Family(
    kernels=X86_AVX512,
    machine="x86_64",
    needs=frozenset({"avx512f", "avx512bw", "avx512vpopcntdq"}),
    telling=frozenset(
        {
            "avx2",
            "avx512f",
            "avx512bw",
            "avx512vl",
            "avx512vpopcntdq",
            "avx512bitalg",
            "avx512vnni",
        }
    ),
    dots={"avx512vnni": VNNI},
    least_cpu="x86-64",
)
