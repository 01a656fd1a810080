"""Pooling of images, channels last: the maximum, or the average of what lies inside, in registers. Of words
of bits it is the maximum of each bit, which is set where any is.

Taps outside the image are skipped, so nothing is padded: the maximum ignores them, and the average divides by
the number of taps inside or, with `count_padding`, by that of all.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution
from schedules.parts.emit import in_pieces, load, spread, store, vector, whole_vectors
from schedules.parts.epilogue import Epilogue
from schedules.parts.windows import taps_inside
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments
from schedules.targets.kernel_target import Lanes

LANES = Lanes(lanes=64)


@dataclass(frozen=True)
class Pooling:
    """window: the geometry, a convolution of as many groups as channels; dtype: of what is pooled; of_bits:
    whether that are words of bits."""

    window: Convolution
    dtype: str
    average: bool = False
    count_padding: bool = False
    of_bits: bool = False


def pooling_reference(images: np.ndarray, pool: Pooling) -> np.ndarray:
    """[N, H, W, C] -> [N, OH, OW, C], window by window."""
    conv = pool.window
    (top, left, _, _), (dy, dx) = conv.padding, conv.dilation
    out = np.zeros(conv.out_shape, images.dtype)
    for y in range(conv.out_height):
        for x in range(conv.out_width):
            rows = [y * conv.strides[0] - top + i * dy for i in range(conv.kernel[0])]
            columns = [x * conv.strides[1] - left + j * dx for j in range(conv.kernel[1])]
            rows = [r for r in rows if 0 <= r < conv.height]
            columns = [c for c in columns if 0 <= c < conv.width]
            seen = images[:, rows][:, :, columns]
            if pool.of_bits:
                out[:, y, x] = np.bitwise_or.reduce(seen, (1, 2))
            elif pool.average:
                count = conv.kernel[0] * conv.kernel[1] if pool.count_padding else len(rows) * len(columns)
                out[:, y, x] = seen.sum((1, 2)) / count
            else:
                out[:, y, x] = seen.max((1, 2))
    return out


def pooling_kernel(pool: Pooling, epilogue: Epilogue, lanes: Lanes = LANES) -> tirx.PrimFunc:
    """Parameters of the kernel: images [N, H, W, C], the epilogue's operands, and the outputs.

    Every window must hold a tap inside the image. lanes: channels, a multiple of those in a packed word.
    """
    conv = pool.window
    channels, (top, left, _, _) = conv.channels, conv.padding
    low = tirx.const(0, pool.dtype) if pool.average else tirx.min_value(pool.dtype)
    combine = operator.add if pool.average else operator.or_ if pool.of_bits else tirx.max
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        images = T.arg("images", T.buffer((conv.batch, conv.height, conv.width, channels), pool.dtype))
        operands = operand_arguments(epilogue)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            def block(n, oh, ow, start, width: int):
                best = T.alloc_buffer((width,), pool.dtype, scope="local")
                vectors = whole_vectors(width)
                for lane, count in vectors:
                    store(best, lane, count, spread(low, count))
                y, x = oh * conv.strides[0] - top, ow * conv.strides[1] - left
                y_first, y_end = taps_inside(oh, conv, 0)
                x_first, x_end = taps_inside(ow, conv, 1)
                with T.serial(y_first, y_end) as i, T.serial(x_first, x_end) as j:
                    for lane, count in vectors:
                        at = [n, y + i * conv.dilation[0], x + j * conv.dilation[1], start + lane]
                        seen, old = vector(images, at, count), load(best, lane, count)
                        store(best, lane, count, combine(old, seen))
                settled = T.alloc_buffer((width,), pool.dtype, scope="local")
                for lane, count in vectors:
                    store(settled, lane, count, load(best, lane, count))
                inside = (y_end - y_first) * (x_end - x_first)
                taps = tirx.const(conv.kernel[0] * conv.kernel[1], "int32") if pool.count_padding else inside
                divisor = taps.astype(pool.dtype)

                def total(lane, channel, lanes):
                    value = vector(settled, [lane], lanes)
                    if not pool.average:
                        return value
                    return value / spread(divisor, lanes)

                writer.write(n, oh, ow, start, width, total)

            with T.parallel(0, conv.batch * conv.out_height) as r, T.serial(0, conv.out_width) as ow:
                n, oh = r // conv.out_height, r % conv.out_height
                in_pieces(channels, lanes.lanes, partial(block, n, oh, ow))
    return builder.get()
