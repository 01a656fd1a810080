"""XNOR-Net: o = (sign(a) * sign(w)) . K alpha, eq. 14, statistics without gradient."""

from typing import Any

import numpy as np
from torch import nn

from tests.trainers.formulas import (
    Learned,
    add_bias,
    clip,
    mean_of_channels,
    per_channel,
    products,
    signs,
    through_signs,
    weights_of,
    windows,
)

NEEDS = 1
NAN_STAYS = True  # in the statistic of the activations
DIFFERS: tuple[str, ...] = ()


def k_of(layer: Any, x: np.ndarray, variant: str) -> np.ndarray:
    if isinstance(layer, nn.Linear):
        return np.abs(x).mean(-1, keepdims=True)
    if variant == "released":
        return np.abs(x).mean(tuple(range(1, x.ndim)), keepdims=True)
    out = None
    for extents, position, window in windows(layer, np.abs(x)):
        if out is None:
            out = np.zeros((x.shape[0], layer.out_channels, *extents))
        size = layer.in_channels // layer.groups
        for o in range(layer.out_channels):
            first = o // (layer.out_channels // layer.groups) * size
            part = window[:, first : first + size]
            taps = np.maximum(1, np.isfinite(part).reshape(len(part), -1).sum(1))
            out[(slice(None), o, *position)] = np.nansum(part.reshape(len(part), -1), 1) / taps
    assert out is not None
    return out


def centred(w: np.ndarray, variant: str) -> np.ndarray:
    """A linear layer's weights as their sign is taken."""
    return w - w.mean(1, keepdims=True) if variant == "released" else w


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    w = weights_of(layer)
    w = centred(w, variant) if isinstance(layer, nn.Linear) else w
    y = products(layer, signs(x), signs(w))
    return add_bias(layer, y * k_of(layer, x, variant) * per_channel(layer, mean_of_channels(w)))


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    v = centred(w, variant)
    scale = np.abs(a).mean(1, keepdims=True) * mean_of_channels(v)
    to_a, to_v = through_signs(clip(a, variant), clip(v, variant), signs(a), signs(v), scale)
    return to_a, centred(to_v, variant)  # centring is a projection, and so its own transpose
