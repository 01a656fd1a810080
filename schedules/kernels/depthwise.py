"""Depthwise convolution: one output channel a group, so that lanes are channels and nothing is broadcast.

    sum[channel] += popcount(activation[channel] ^ weight[channel])    a byte a channel, at most 8 in a group
    sum[channel] += activation[channel] * weight[channel]              float or int8, one input in a group

The plain reference is that of convolution.py; the borders are those of borders.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution, dtype_of_counts
from schedules.kernels.convolution import pad_in_kernel
from schedules.parts.bits import Packing
from schedules.parts.borders import Borders, Ending
from schedules.parts.emit import each, flat, vector
from schedules.parts.epilogue import Epilogue
from schedules.parts.write_back import KERNEL_ATTRIBUTES, Writer, operand_arguments, output_arguments

LANES = 64


def is_depthwise(conv: Convolution, packed: bool) -> bool:
    return conv.out_channels == conv.groups > 1 and conv.channels // conv.groups <= (8 if packed else 1)


def in_tap_order(weights: np.ndarray) -> np.ndarray:
    """[O, KH, KW, 1] -> flat, channels last: kh, kw, o."""
    return np.ascontiguousarray(np.moveaxis(weights[..., 0], 0, -1)).ravel()


def depthwise_convolution(
    conv: Convolution,
    packing: Packing | None,
    epilogue: Epilogue,
    *,
    ending: Ending,
    in_shape: tuple[int, ...] | None = None,
) -> tirx.PrimFunc:
    """Parameters of the kernel: those of `binary_convolution` or `int8_convolution` (packed in bytes, without
    a zero point), or of `float_convolution`, whose `in_shape` is here [N, H, W, C] where it is not given."""
    int8 = packing is not None and packing.quantizer is not None
    channels = conv.out_channels
    halo = packing.halo if packing else conv.padding
    top, left = halo[0] - conv.padding[0], halo[1] - conv.padding[1]
    height, width = conv.height + halo[0] + halo[2], conv.width + halo[1] + halo[3]
    if packing:
        in_shape = packing.shape(conv.batch, conv.height, conv.width)
    elif in_shape is None:
        in_shape = (conv.batch, conv.height, conv.width, channels)
    dtype = packing.dtype if packing else "float32"
    sum_dtype = "float32" if packing is None else "int32" if int8 else dtype_of_counts(conv.products)
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        source = T.arg("activations", T.buffer(in_shape, dtype))
        weights = T.arg("weights", T.buffer((conv.kernel[0] * conv.kernel[1] * channels,), dtype))
        operands = operand_arguments(epilogue)
        borders = Borders(conv, ending)
        outputs = output_arguments(epilogue)
        with T.sblock("root"):  # TVM's passes look for one in every kernel
            padded = packing is None and any(conv.padding)
            activations = pad_in_kernel(source, conv) if padded else flat(source)
            writer = Writer(epilogue, outputs, operands, conv.out_shape[:3])
            writer.clear_halos()

            def block(n, oh, ow, start, valid: int):
                sums = T.alloc_buffer((valid,), sum_dtype, scope="local")
                with T.vectorized(0, valid) as lane:
                    T.buffer_store(sums, tirx.const(0, sum_dtype), [lane])

                def tap(i):
                    kh, kw = i // conv.kernel[1], i % conv.kernel[1]
                    y = oh * conv.strides[0] + kh * conv.dilation[0] + top
                    x = ow * conv.strides[1] + kw * conv.dilation[1] + left
                    first = ((n * height + y) * width + x) * channels + start
                    with T.vectorized(0, valid) as lane:
                        a, w = activations[first + lane], weights[i * channels + start + lane]
                        if int8:
                            new = _signed(a) * _signed(w)
                        else:
                            new = tirx.popcount(a ^ w).astype(sum_dtype) if packing else a * w
                        T.buffer_store(sums, sums[lane] + new, [lane])

                each(conv.kernel[0] * conv.kernel[1], tap)

                def total(lane, channel, lanes):
                    sum_ = vector(sums, [lane], lanes)
                    return borders.settle(sum_, oh, ow, channel, lanes) if packing and not int8 else sum_

                writer.write(n, oh, ow, start, valid, total)

            with T.parallel(0, conv.batch * conv.out_height) as r:
                n, oh = r // conv.out_height, r % conv.out_height
                with T.serial(0, conv.out_width) as ow:
                    whole, rest = divmod(channels, LANES)
                    each(whole, lambda b: block(n, oh, ow, b * LANES, LANES))
                    if rest:
                        block(n, oh, ow, whole * LANES, rest)
    return builder.get()


def _signed(byte: Any) -> Any:
    return byte.astype("int8").astype("int32")
