"""Which layers may read an image [N, C, H, W] plane by plane, as it comes into a network."""

from __future__ import annotations

from schedules.geometry import Convolution

FEW_CHANNELS = 4
"""With no more, turning an image costs more than reading it plane by plane."""


def may_read_planes(conv: Convolution) -> bool:
    return conv.channels <= FEW_CHANNELS and conv.groups == 1 and conv.dilation[1] == 1
