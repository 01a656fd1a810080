"""The geometry of a layer, which kernels, tiles and tables are made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# An unsigned lane of 16 bits counts to 65,535, and each of the products of an output, a pair of bits, may be
# one that differs.
_MOST_IN_8_BITS = np.iinfo(np.uint8).max
_MOST_IN_16_BITS = np.iinfo(np.uint16).max


def counts_in_16_bits(most: int) -> bool:
    """Whether a lane of 16 bits holds every count up to this one."""
    return most <= _MOST_IN_16_BITS


def dtype_of_counts(most: int) -> str:
    """The narrowest that holds every count up to this one, of at least 16 bits."""
    return "uint16" if counts_in_16_bits(most) else "uint32"


@dataclass(frozen=True)
class Convolution:
    """Extents without padding; padding: top, left, bottom, right. A dense layer is height 1, width = rows."""

    batch: int
    height: int
    width: int
    channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def out_height(self) -> int:
        top, _, bottom, _ = self.padding
        return (self.height + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.strides[
            0
        ] + 1

    @property
    def out_width(self) -> int:
        _, left, _, right = self.padding
        return (self.width + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.strides[
            1
        ] + 1

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.out_height, self.out_width, self.out_channels)

    @property
    def products(self) -> int:
        """K, the number of products in one output element."""
        return self.kernel[0] * self.kernel[1] * self.channels // self.groups

    @property
    def counts_in_bytes(self) -> bool:
        """Whether each group has one channel, and so few taps that a byte holds every count and its limit."""
        return self.channels == self.groups and self.products + 1 <= _MOST_IN_8_BITS

    @property
    def taps_in_a_run(self) -> int:
        """How many taps of a kernel row are neighbours in memory: all, where nothing lies between them."""
        return self.kernel[1] if self.dilation[1] == 1 and self.groups == 1 else 1

    @property
    def macs(self) -> int:
        return int(np.prod(self.out_shape)) * self.products
