"""DoReFa-Net: o = (sign(a) * sign(w)) . alpha, eq. 15, alpha of the layer, or as released of the channel."""

from typing import Any

import numpy as np

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
)

NEEDS = 1
NAN_STAYS = False
DIFFERS: tuple[str, ...] = ()


def alpha_of(w: np.ndarray, variant: str) -> np.ndarray:
    return mean_of_channels(w) if variant == "released" else np.full(len(w), np.abs(w).mean())


def forward(layer: Any, variant: str, x: np.ndarray, learned: Learned) -> np.ndarray:
    w = weights_of(layer)
    return add_bias(layer, products(layer, signs(x), signs(w)) * per_channel(layer, alpha_of(w, variant)))


def gradients(w: np.ndarray, a: np.ndarray, variant: str, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    return through_signs(clip(a, variant), clip(w, variant), signs(a), signs(w), alpha_of(w, variant))
