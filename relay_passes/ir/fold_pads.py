"""A padding with zeros in front of a convolution is the convolution's own, which costs nothing.

Not a pass of its own: `mark_layers` asks when it meets a convolution, where the two still touch.
"""

from __future__ import annotations

from tvm import relax

from relay_passes.ir.rewrite import is_call, made_by


def without_pad(
    builder: relax.BlockBuilder, x: relax.Expr, padding: list[int]
) -> tuple[relax.Expr, list[int]]:
    """(x before it was padded, the padding of a convolution that reads it: all befores, then all afters)."""
    pad = made_by(builder, x)
    if not is_call(pad, "relax.nn.pad") or pad.attrs.pad_mode != "constant" or float(pad.attrs.pad_value):
        return x, padding
    widths = [int(p) for p in pad.attrs.pad_width]
    before, after, spatial = widths[0::2], widths[1::2], len(padding) // 2
    if min(widths) < 0 or any(before[:-spatial] + after[:-spatial]):
        return x, padding
    more = before[-spatial:] + after[-spatial:]
    return without_pad(builder, pad.args[0], [p + q for p, q in zip(padding, more, strict=True)])
