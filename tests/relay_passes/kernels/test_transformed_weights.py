"""Winograd's method decides no ties: sums of pixels that are exactly zero are so in the artifact."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bibench_tvm import compile_model
from relay_passes.kernels.transformed_weights import are_multiples, inside, of_input
from schedules.geometry import Convolution
from schedules.targets.x86_avx2 import X86_AVX2

RNG = np.random.default_rng(0)
SHAPE = (16, 3, 3, 8)
SCALES = np.exp(RNG.normal(size=(16, 1, 1, 1)))
WHOLE = RNG.integers(-127, 128, SHAPE)
WEIGHTS = {
    "signs": (np.sign(RNG.normal(size=SHAPE)), True),
    "scaled signs": (SCALES * np.sign(RNG.normal(size=SHAPE)), True),
    "ternary": (SCALES * RNG.integers(-1, 2, SHAPE), True),
    "bytes": (WHOLE * 2.0**-7, True),
    "bytes by powers of two": (WHOLE * 2.0 ** RNG.integers(-9, 3, (16, 1, 1, 1)), True),
    "zeros": (np.zeros(SHAPE), True),
    "bytes by any scale": (SCALES * WHOLE, False),
    "floats": (RNG.normal(size=SHAPE), False),
    "one channel of floats": (np.concatenate([WHOLE[:15], RNG.normal(size=(1, 3, 3, 8))]), False),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_is_many_times_one_number(name: str) -> None:
    weights, expected = WEIGHTS[name]
    assert are_multiples(weights.astype("float32")) == expected


@pytest.mark.parametrize(("chosen", "channels"), [(of_input, 3), (inside, 16)])
def test_floats_are_by_winograds_method(chosen: Callable[..., bool], channels: int) -> None:
    conv = Convolution(1, 32, 32, channels, 16, (3, 3), padding=(1, 1, 1, 1))
    weights = RNG.normal(size=(16, 3, 3, channels))
    assert chosen(weights, conv, X86_AVX2)
    assert not chosen(np.sign(weights), conv, X86_AVX2)


class Network(nn.Module):
    def __init__(self, first: nn.Module, layer: nn.Conv2d) -> None:
        super().__init__()
        self.first, self.layer = first, layer
        self.binary = nn.Conv2d(layer.out_channels, 8, 1, bias=False)
        self.binary.weight.data = torch.where(self.binary.weight.data >= 0, 1.0, -1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.binary(torch.where(self.layer(self.first(x)) >= 0, 1.0, -1.0))


def whole(layer: nn.Conv2d, most: int) -> nn.Conv2d:
    values = RNG.integers(-most, most, tuple(layer.weight.shape))
    layer.weight.data = torch.from_numpy(np.where(values >= 0, values + 1, values).astype("float32"))
    return layer


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("place", ["of the input", "inside"])
def test_ties_are_ties(place: str, most: int, tmp_path: Path) -> None:
    layer = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    first: nn.Module = nn.Identity()
    if place == "inside":
        first = nn.Sequential(whole(nn.Conv2d(3, 16, 1, bias=False), 3), nn.ReLU())
        layer = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    model = Network(first, whole(layer, most)).eval()
    pixels = RNG.integers(0, 4, (4, 3, 32, 32)).astype("float32")
    with torch.no_grad():
        ties = (model.layer(model.first(torch.from_numpy(pixels))) == 0).float().mean()
        expected = model(torch.from_numpy(pixels)).numpy()
    assert ties > 0.001
    np.testing.assert_array_equal(
        compile_model(model, torch.zeros(1, 3, 32, 32), out=tmp_path).run(pixels), expected
    )
