"""What the -1 and +1 of each pixel add up to: ones less zeros, counted in packed words.

The plain reference is the sum of `2 * unpack(words) - 1` over the channels.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.bits import Packing
from schedules.parts.write_back import KERNEL_ATTRIBUTES


def sign_sums_kernel(extents: tuple[int, int, int], packing: Packing) -> tirx.PrimFunc:
    """Parameters of the kernel: words without a halo, and the output, int32 [N, H, W, 1].

    extents: batch, height, width.
    """
    batch, height, width = extents
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        words = T.arg("words", T.buffer(packing.shape(*extents), packing.dtype))
        output = T.arg("output0", T.buffer((*extents, 1), "int32"))
        # TVM's passes look for a block in every kernel.
        with T.sblock("root"), T.parallel(0, batch * height) as r, T.serial(0, width) as x:
            n, y = r // height, r % height
            ones = T.alloc_buffer((1,), "int32", scope="local")
            T.buffer_store(ones, tirx.const(0, "int32"), [0])
            with T.serial(0, packing.words) as w:
                count = tirx.popcount(words[n, y, x, w]).astype("int32")
                T.buffer_store(ones, ones[0] + count, [0])
            T.buffer_store(output, 2 * ones[0] - packing.channels, [n, y, x, 0])
    return builder.get()
