"""What becomes of a count of differing bits: a dot product, or a threshold's truth, exact at the borders too.

What a zero in the padding counts
---------------------------------
PyTorch pads the +-1 activations with 0, which a bit cannot say. The halo holds 0 bits, read as -1. Let
`count` be the number of differing bits over all taps, `missing` the taps that lie in the padding at this
pixel, and K' the number of products that do not. A bit 0 in the halo differs from the weight bit where that
bit is 1, so

    count = count_valid + sum over missing of popcount(weight[tap])
    dot   = K' - 2 * count_valid
          = K' + 2 * sum over missing of popcount(weight[tap]) - 2 * count
          = base[row class, column class, output channel] - 2 * count

Pixels with the same missing taps form a class; `border_tables` makes the small integer table `base`. Without
padding it is the one number K. The same table serves activations in {0, 1} (`zero_one`); with
a = (s + 1) / 2,

    2 * sum(a * w) = dot + sum over valid taps of w,  which is again  base' - 2 * count.

Stored in bytes
---------------
The table has an entry for each class and output channel, of two bytes; beside 256 channels of packed weights
that is 1/16 of them. Over +-1 an entry is K less the sum of the weights that are missing, which is small: at
a corner the standard deviation for 5 taps of 512 channels is 50. It has the parity of the number of missing
weights, an even one for an even number of channels, so that half of it fits into a byte nearly always:

    dot = K - 2 * (count - half),   half = (base - K) / 2

That is two instructions more for each vector of outputs: 0.3 % of a layer of 2304 products, 1.3 % of one of
576, counted on a Cortex-A72. `relay_passes/kernels` has it where the tables are large. The limit of a truth
moves by as much from class to class, so that its table is the same, beside a limit for each channel:

    dot >= T  <=>  count < half + limit,   limit = floor((K - T) / 2) + 1
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from schedules.geometry import Convolution, dtype_of_counts
from schedules.parts.emit import cast, spread, vector

# What the epilogue gets for a count: `products - 2 * count` (no padding), `base - 2 * count` by the three
# `border_tables`, or the truth of `dot >= threshold` by the `limit_table` in the place of base.
Ending = Literal["dot", "bordered dot", "truth"]
CLASS_DTYPE = "uint16"  # there are at most two more classes than taps in a row or column


def _taps(extent: int, out: int, kernel: int, stride: int, before: int, dilation: int) -> np.ndarray:
    """bool [out, kernel]: which taps of each output position lie inside the image."""
    position = np.arange(out)[:, None] * stride - before + np.arange(kernel)[None] * dilation
    return (position >= 0) & (position < extent)


def _border_classes(conv: Convolution) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """For rows and columns: the distinct sets of valid taps, and which of them each output position has."""
    top, left, _, _ = conv.padding
    rows = _taps(conv.height, conv.out_height, conv.kernel[0], conv.strides[0], top, conv.dilation[0])
    columns = _taps(conv.width, conv.out_width, conv.kernel[1], conv.strides[1], left, conv.dilation[1])
    return np.unique(rows, axis=0, return_inverse=True), np.unique(columns, axis=0, return_inverse=True)


def border_dtype(conv: Convolution) -> str:
    """Of the base table, whose entries reach 3 K, and 5 K with `zero_one`; small: it is stored."""
    return "int16" if 5 * conv.products <= np.iinfo(np.int16).max else "int32"


def border_tables(
    conv: Convolution, weights: np.ndarray, zero_one: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """base [row classes, column classes, O] of `border_dtype`, row_class [OH], column_class [OW].

    weights: bool [O, KH, KW, C / groups].
    """
    valid, *classes = _valid_taps(conv)
    ones = weights.sum(-1, dtype=np.int32)  # [O, KH, KW]
    channels = conv.channels // conv.groups
    base = channels * valid.sum((2, 3))[..., None] + 2 * np.einsum("rcij,oij->rco", 1 - valid, ones)
    if zero_one:
        base = base + np.einsum("rcij,oij->rco", valid, 2 * ones - channels)
    return base.astype(border_dtype(conv)), *classes


def halves(base: np.ndarray, conv: Convolution) -> np.ndarray | None:
    """(base - K) / 2 as int8, for a kernel with `Borders(..., in_bytes=True)`; None where it is no byte."""
    half, odd = np.divmod(base.astype(np.int64) - conv.products, 2)
    bytes_ = np.iinfo(np.int8)
    return None if odd.any() or half.min() < bytes_.min or half.max() > bytes_.max else half.astype(np.int8)


def inside_sums(conv: Convolution, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the weights of the taps inside the image add up to, float64 [row classes, column classes, O], and
    the classes of rows and columns as `border_tables` has them.

    weights: [O, KH, KW, C / groups].
    """
    valid, *classes = _valid_taps(conv)
    return np.einsum("rcij,oij->rco", valid, weights.sum(-1, dtype=np.float64)), *classes


def _valid_taps(conv: Convolution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int32 [RC, CC, KH, KW]: 1 where a tap lies inside the image; the class of each row and column."""
    (rows, row_class), (columns, column_class) = _border_classes(conv)
    valid = (rows[:, None, :, None] & columns[None, :, None, :]).astype(np.int32)
    return valid, row_class.ravel().astype(CLASS_DTYPE), column_class.ravel().astype(CLASS_DTYPE)


def limit_table(base: np.ndarray, thresholds: np.ndarray, conv: Convolution) -> np.ndarray:
    """What a count must stay below for its dot product to reach its channel's threshold.

    dot >= T  <=>  base - 2 * count >= T  <=>  count < floor((base - T) / 2) + 1.
    """
    below = (base.astype(np.int64) - thresholds.astype(np.int64)) // 2 + 1
    return np.clip(below, 0, conv.products + 1).astype(count_dtype(conv))


def limits_inside(thresholds: np.ndarray, conv: Convolution) -> np.ndarray | None:
    """The limit of each channel where no tap is missing, int16 [O], to be moved by `halves`; None where
    counts may be larger than that.

    One that no count reaches, or each, is moved nearer, but not by what a byte could take it back.
    """
    byte = 1 << 7
    if conv.products + 2 * byte > np.iinfo(np.int16).max:
        return None
    limits = (conv.products - thresholds.astype(np.int64)) // 2 + 1
    limits = np.broadcast_to(limits, conv.out_channels)
    return np.clip(limits, -byte, conv.products + 1 + byte).astype(np.int16)


def count_dtype(conv: Convolution) -> str:
    """Of counts, which reach the number of products, and of their limits, which reach one more."""
    return "uint8" if conv.counts_in_bytes else dtype_of_counts(conv.products + 1)


class Borders:
    """The kernel's side of the tables: parameters, and what becomes of a count.

    in_bytes: the base of a "bordered dot" is stored as `halves` has it, and so are the limits of a "truth",
    beside those that `limits_inside` gives. limits: their dtype otherwise. alone: the classes are not read
    where there is but one, so that what is read of the table stays in registers."""

    def __init__(
        self,
        conv: Convolution,
        ending: Ending,
        in_bytes: bool = False,
        *,
        limits: str | None = None,
        alone: bool = False,
    ):
        self.conv, self.ending, self.in_bytes = conv, ending, in_bytes
        if ending == "dot":
            return
        (rows, _), (columns, _) = _border_classes(conv)
        dtype = border_dtype(conv) if ending == "bordered dot" else limits or count_dtype(conv)
        dtype = "int8" if in_bytes else dtype
        self.table = T.arg("table", T.buffer((len(rows), len(columns), conv.out_channels), dtype))
        self.row_class = T.arg("row_class", T.buffer((conv.out_height,), CLASS_DTYPE))
        self.column_class = T.arg("column_class", T.buffer((conv.out_width,), CLASS_DTYPE))
        self.alone = alone and len(rows) == len(columns) == 1
        if in_bytes and ending == "truth":
            self.limits = T.arg("limits", T.buffer((conv.out_channels,), "int16"))

    def settle(self, count: Any, oh: Any, ow: Any, channel: Any, lanes: int) -> Any:
        """A vector of counts -> dot products int32, or the truth of dot >= threshold."""
        products = self.conv.products
        if self.ending == "dot":
            return spread(tirx.const(products, "int32"), lanes) - _twice(count, "int32", lanes)
        row, column = 0, 0
        if not self.alone:
            row, column = (c.astype("int32") for c in (self.row_class[oh], self.column_class[ow]))
        table = vector(self.table, [row, column, channel], lanes)
        if self.ending == "truth" and self.in_bytes:
            limit = vector(self.limits, [channel], lanes) + cast(table, "int16", lanes)
            return cast(count, "int16", lanes) < limit
        if self.ending == "truth":
            dtype = str(self.table.dtype)
            return (count if str(count.ty).startswith(dtype) else cast(count, dtype, lanes)) < table
        # In 16 bits where the result fits: what overflows on the way comes back.
        fits = 2 * products <= np.iinfo(np.int16).max and str(count.ty).startswith(("uint8", "uint16"))
        narrow = "int16" if fits else "int32"
        table = cast(table, narrow, lanes)
        if self.in_bytes:
            inside = cast(count, narrow, lanes) - table
            dot = spread(tirx.const(products, narrow), lanes) - _twice(inside, narrow, lanes)
        else:
            dot = table - _twice(count, narrow, lanes)
        return cast(dot, "int32", lanes)


def _twice(count: Any, dtype: str, lanes: int) -> Any:
    return cast(count, dtype, lanes) * spread(tirx.const(2, dtype), lanes)
