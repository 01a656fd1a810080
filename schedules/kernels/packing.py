"""Packing: a comparison, and what is computed element by element before it, to bits; or a float to bytes.

The plain reference is `bits.pack` after `Epilogue.evaluate`.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.parts.emit import in_pieces
from schedules.parts.epilogue import Epilogue
from schedules.parts.write_back import (
    KERNEL_ATTRIBUTES,
    Writer,
    first_bits,
    operand_arguments,
    output_arguments,
)

BLOCK = 64


def packing_kernel(extents: tuple[int, int, int, int], epilogue: Epilogue) -> tirx.PrimFunc:
    """Parameters of the kernel: the epilogue's operands and its outputs, of which one is packed.

    extents: batch, height, width, channels of what is packed. Where groups do not fill their words, that is
    the only output.
    """
    batch, height, width, channels = extents
    (packing,) = (output.packing for output in epilogue.outputs if output.packing)
    group = channels // packing.groups
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        operands = operand_arguments(epilogue)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            writer = Writer(epilogue, outputs, operands, (batch, height, width))
            writer.clear_halos()
            [(words, _)] = writer.packed
            top, left, _, _ = packing.halo
            _, out_height, out_width, pitch = packing.shape(batch, height, width)

            def group_by_group(n, y, x, first):
                with T.serial(0, packing.groups) as g:

                    def word(channel: Any, count: int) -> None:
                        def truth(done: int, size: int) -> Any:
                            index = [n, y, x, g * group + channel + done]
                            return epilogue.emit(None, index, operands, size)[0]

                        at = first + g * packing.words_per_group + channel // packing.word
                        T.buffer_store(words, first_bits(truth, count, packing.dtype), [at])

                    in_pieces(group, packing.word, word)

            with T.parallel(0, batch * height) as r:
                n, y = r // height, r % height
                with T.serial(0, width) as x:
                    first = ((n * out_height + y + top) * out_width + x + left) * pitch
                    if packing.groups > 1 and group % packing.per_word:
                        group_by_group(n, y, x, first)
                    else:
                        in_pieces(
                            channels,
                            BLOCK,
                            lambda channel, count: writer.write(n, y, x, channel, count, lambda *_: None),
                        )
    return builder.get()
