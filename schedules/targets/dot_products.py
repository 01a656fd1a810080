"""The instructions of each processor that multiply 8-bit integers and add up the products.

Words hold consecutive channels: a word of an activation is broadcast, and meets the word of each output
channel.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.targets.kernel_target import DotProduct, Tile, lanes_for


def _as(dtype: str, value: Any) -> Any:
    return tirx.call_intrin(dtype, "tirx.reinterpret", value)


def _wide(word: Any, count: int) -> Any:
    """Words of signed bytes as int16."""
    return _as(f"int8x{count}", word).astype(f"int16x{count}")


def _tile(pixels: int, most: int, quantum: int) -> Any:
    def tile(conv: Convolution) -> Tile:
        return Tile(pixels, lanes_for(conv.out_channels // conv.groups, most, quantum), quantum)

    return tile


def _one_by_one(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
    (a,), (w,) = activations, weights
    lanes = 4
    return sums + _as(f"int8x{lanes}", a).astype(f"int32x{lanes}") * _as(f"int8x{lanes}", w).astype(
        f"int32x{lanes}"
    )


PLAIN = DotProduct(8, 0, 4, 1, 1, _tile(2, 8, 4), _one_by_one)
"""Nothing but a multiplication."""


def _pairs(name: str, lanes: int) -> Any:
    def add(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
        (a,), (w,) = activations, weights
        pairs = _wide(a, 2 * lanes), _wide(w, 2 * lanes)
        return sums + T.call_llvm_pure_intrin(f"int32x{lanes}", name, *pairs)

    return add


AVX2_PAIRS = DotProduct(16, 0, 8, 1, 1, _tile(4, 16, 8), _pairs("llvm.x86.avx2.pmadd.wd", 8))
"""`vpmaddwd`: two products of int16 to a sum. (`vpmaddubsw` has four of bytes, and saturates.)"""
AVX512_PAIRS = DotProduct(16, 0, 16, 1, 1, _tile(4, 64, 16), _pairs("llvm.x86.avx512.pmaddw.d.512", 16))


def _vnni(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
    a, w = (_as("int8x64", word) for (word,) in (activations, weights))
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", sums, a, w)


def _vnni_tile(conv: Convolution) -> Tile:
    # Rows of 7 leave no rest; one pixel wants many channels, which hide the latency of a sum.
    pixels, most = (7, 32) if 4 < conv.out_width <= 7 else (4, 64)
    return Tile(pixels, lanes_for(conv.out_channels // conv.groups, most, 16), 16)


AVX512_VNNI = DotProduct(32, 128, 16, 1, 1, _vnni_tile, _vnni)
"""`vpdpbusd`: four products of an unsigned byte and a signed one to a sum."""


def _sdot(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
    a, w = (_as("int8x16", word) for (word,) in (activations, weights))
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", sums, w, a)


NEON_SDOT = DotProduct(32, 0, 4, 4, 1, _tile(4, 16, 4), _sdot)
"""`sdot` by element: four products to a sum, the activations read from a lane of a register."""


def _long(pairwise: Any) -> Any:
    """`smull`, `smlal`, `sadalp`: two products of bytes fit into 16 bits, 2 * 127 * 127 < 2**15."""

    def add(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
        products: Any = None
        for a, w in zip(activations, weights, strict=True):
            new = _wide(a, 16) * _wide(w, 16)
            products = new if products is None else products + new
        halves = [tirx.Shuffle([products], list(range(i, i + 8))) for i in (0, 8)]
        old = [tirx.Shuffle([sums], list(range(i, i + 4))) for i in (0, 4)]
        new_sums = [pairwise(s, p) for s, p in zip(old, halves, strict=True)]
        return tirx.Shuffle(new_sums, list(range(8)))

    return add


def _sadalp(sums: Any, products: Any) -> Any:
    return sums + T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", products)


def _vpadal(sums: Any, products: Any) -> Any:
    return T.call_llvm_pure_intrin("int32x4", "llvm.arm.neon.vpadals.v4i32.v8i16", sums, products)


NEON_LONG = DotProduct(16, 0, 8, 2, 2, _tile(4, 16, 8), _long(_sadalp))
ARM32_LONG = DotProduct(16, 0, 8, 2, 2, _tile(2, 16, 8), _long(_vpadal))
