"""The windows of a pool, as those of a convolution of as many groups as channels."""

from __future__ import annotations

from tvm import relax

from relay_passes.ir.rewrite import shape_of
from schedules.geometry import Convolution


def window_of(pool: relax.Call, out_shape: tuple[int, ...]) -> Convolution:
    """Of a `max_pool2d` or `avg_pool2d`, channels last. The padding at the end is what the windows span: more
    than the pool says with `ceil_mode`, and less where some of the image is left out."""
    batch, height, width, channels = shape_of(pool.args[0])
    _, out_height, out_width, _ = out_shape
    kernel, strides, dilation, (top, left, *_) = (
        tuple(int(n) for n in getattr(pool.attrs, name))
        for name in ("pool_size", "strides", "dilation", "padding")
    )
    bottom = max(0, (out_height - 1) * strides[0] + dilation[0] * (kernel[0] - 1) + 1 - height - top)
    right = max(0, (out_width - 1) * strides[1] + dilation[1] * (kernel[1] - 1) + 1 - width - left)
    return Convolution(
        batch,
        height,
        width,
        channels,
        channels,
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        padding=(top, left, bottom, right),
        dilation=(dilation[0], dilation[1]),
        groups=channels,
    )
