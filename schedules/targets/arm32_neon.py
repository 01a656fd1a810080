"""32-bit NEON: 16 registers of 16 bytes, otherwise as aarch64_neon."""

from typing import Any

from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.targets.dot_products import fixed_tile, long_products
from schedules.targets.family import Family
from schedules.targets.kernel_target import DotProduct, KernelTarget, Tile, lanes_for


def binary_tile(conv: Convolution) -> Tile:
    return Tile(pixels=2, lanes=lanes_for(conv.out_channels // conv.groups, 32, 8), quantum=8)


def float_tile(conv: Convolution) -> Tile:
    return Tile(pixels=1, lanes=lanes_for(conv.out_channels // conv.groups, 16, 4), quantum=4)


def winograd_tile(conv: Convolution) -> Tile:
    return Tile(pixels=8, lanes=lanes_for(conv.out_channels, 16, 4), quantum=4)


def _vpadal(sums: Any, products: Any) -> Any:
    return T.call_llvm_pure_intrin("int32x4", "llvm.arm.neon.vpadals.v4i32.v8i16", sums, products)


LONG = DotProduct(
    word=16, lanes=8, together=2, at_once=2, tile=fixed_tile(2, 16, 8), add=long_products(_vpadal)
)

ARM32_NEON = KernelTarget(
    name="arm32_neon",
    word=16,
    together=4,
    binary_tile=binary_tile,
    float_tile=float_tile,
    winograd_tile=winograd_tile,
    dot=LONG,
)

FAMILY = Family(
    kernels=ARM32_NEON,
    machine="armv",
    needs=frozenset({"neon"}),
    telling=frozenset({"neon", "vfp4"}),
)
