"""Ways to multiply 8-bit integers and add up the products, of which families of processors make theirs.

Words hold consecutive channels: a word of an activation is broadcast, and meets the word of each output
channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.targets.kernel_target import DotProduct, Tile, lanes_for

Add = Callable[[Any, list[Any], list[Any]], Any]
"""As `DotProduct.add`."""


def reinterpreted(dtype: str, value: Any) -> Any:
    return tirx.call_intrin(dtype, "tirx.reinterpret", value)


def fixed_tile(pixels: int, most: int, quantum: int) -> Callable[[Convolution], Tile]:
    """The same for every layer, of at most so many lanes."""

    def tile(conv: Convolution) -> Tile:
        lanes = lanes_for(conv.out_channels // conv.groups, most, quantum)
        return Tile(pixels=pixels, lanes=lanes, quantum=quantum)

    return tile


def pairs(name: str, lanes: int) -> Add:
    """By an instruction of x86 that adds two products of int16 to a sum."""

    def add(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
        (a,), (w,) = activations, weights
        both = _wide(a, 2 * lanes), _wide(w, 2 * lanes)
        return sums + T.call_llvm_pure_intrin(f"int32x{lanes}", name, *both)

    return add


def long_products(pairwise: Callable[[Any, Any], Any]) -> Add:
    """`smull`, `smlal`, `sadalp`: two products of bytes fit into 16 bits, 2 * 127 * 127 < 2**15.

    pairwise(sums, products): int32 and int16, of which it adds neighbours to each sum."""

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


def _wide(word: Any, count: int) -> Any:
    """Words of signed bytes as int16."""
    return reinterpreted(f"int8x{count}", word).astype(f"int16x{count}")


def _one_by_one(sums: Any, activations: list[Any], weights: list[Any]) -> Any:
    (a,), (w,) = (
        [reinterpreted("int8x4", word).astype("int32x4") for word in s] for s in (activations, weights)
    )
    return sums + a * w


PLAIN = DotProduct(word=8, lanes=4, tile=fixed_tile(2, 8, 4), add=_one_by_one)
"""Nothing but a multiplication."""
