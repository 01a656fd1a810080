import numpy as np
import pytest

from relay_passes.halve_float_layers import why_not
from schedules.geometry import Convolution
from schedules.targets.aarch64_neon import FAMILY

A76 = FAMILY.kernels_for(["fullfp16"])
RNG = np.random.default_rng(0)
PADDED = {"kernel": (3, 3), "padding": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("conv", "said"),
    [
        (Convolution(1, 8, 8, 64, 64), ""),
        (Convolution(1, 1, 1, 512, 10), ""),
        (Convolution(1, 8, 8, 64, 64, (3, 3), (2, 2), (1, 1, 1, 1)), ""),
        (Convolution(1, 28, 28, 64, 64, **PADDED), "Winograd"),
        (Convolution(1, 224, 224, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3)), "Winograd"),
        (Convolution(1, 8, 8, 64, 64, groups=64, **PADDED), "depthwise"),
    ],
)
def test_which_layers_stay_float32(conv: Convolution, said: str) -> None:
    weights = RNG.normal(size=(conv.out_channels, *conv.kernel, conv.channels // conv.groups)).astype("f4")
    found = why_not(weights, conv, A76)
    assert said in found and bool(found) == bool(said)


def test_weights_that_float16_has_no_numbers_for_stay_float32() -> None:
    conv = Convolution(1, 8, 8, 64, 64)
    weights = RNG.normal(size=(64, 1, 1, 64)).astype("f4")
    assert "range" in why_not(weights * 1e5, conv, A76)
    assert "in bits" in why_not(np.where(weights > 0, np.float32(0.5), np.float32(0.25)), conv, A76)
