"""Geometries that kernels of convolutions are tested on, and binary layers made for them."""

from dataclasses import replace

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from tvm import tirx

from schedules.geometry import Convolution
from schedules.kernels import depthwise
from schedules.kernels.convolution import (
    binary_convolution,
    binary_convolution_reference,
    lay_out_bits,
)
from schedules.parts.bits import Packing
from schedules.parts.borders import Ending
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import pack_weights
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget

HALO = st.tuples(*[st.integers(0, 3)] * 4)
SEED = st.integers(0, 2**32 - 1)
CHANNELS = [1, 3, 8, 20, 32, 40, 96, 130]
GROUPS = st.sampled_from([1, 1, 1, 2, 3])
TARGETS = st.sampled_from(ALL)
FIXED = [
    Convolution(1, 7, 7, 64, 64, (3, 3), padding=(1, 1, 1, 1)),
    Convolution(2, 5, 6, 20, 35, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2)),
    Convolution(1, 5, 5, 48, 96, (3, 3), padding=(1, 1, 1, 1), groups=4),
    Convolution(1, 6, 6, 130, 130, (3, 3), padding=(1, 1, 1, 1), groups=130),
    Convolution(1, 1, 2, 300, 10),
    Convolution(1, 7, 7, 256, 40, (3, 3), padding=(1, 1, 1, 1)),
]


@st.composite
def convolutions(draw: st.DrawFn, groups=GROUPS) -> Convolution:
    count = draw(groups)
    kernel = draw(st.tuples(*[st.sampled_from([1, 2, 3, 3, 5, 7])] * 2))
    conv = Convolution(
        batch=draw(st.integers(1, 3)),
        height=draw(st.integers(1, 9)),
        width=draw(st.integers(1, 9)),
        channels=count * draw(st.sampled_from(CHANNELS)),
        out_channels=count * draw(st.sampled_from(CHANNELS)),
        kernel=kernel,
        strides=draw(st.tuples(*[st.integers(1, 3)] * 2)),
        padding=draw(HALO),
        dilation=draw(st.tuples(*[st.integers(1, 2)] * 2)),
        groups=count,
    )
    assume(conv.out_height > 0 and conv.out_width > 0)
    return conv


def depthwise_convolutions(per_group: st.SearchStrategy[int]) -> st.SearchStrategy[Convolution]:
    """One output channel a group."""
    groups = st.sampled_from([2, 3, 20, 64, 130])
    return st.builds(
        lambda conv, groups, per_group: replace(
            conv, groups=groups, channels=groups * per_group, out_channels=groups
        ),
        convolutions(groups=st.just(1)),
        groups,
        per_group,
    )


def random_bits(seed: int, conv: Convolution) -> tuple[np.ndarray, np.ndarray]:
    """Activations [N, H, W, C] and weights [O, KH, KW, C / groups]."""
    rng = np.random.default_rng(seed)
    weights = (conv.out_channels, *conv.kernel, conv.channels // conv.groups)
    return rng.random((conv.batch, conv.height, conv.width, conv.channels)) < 0.5, rng.random(weights) < 0.5


def expected_sums(
    bits: np.ndarray, weights: np.ndarray, conv: Convolution, zero_one: bool = False
) -> np.ndarray:
    """What a kernel's epilogue gets; over {0, 1} it is doubled."""
    activations = bits.astype(int) if zero_one else 2 * bits.astype(int) - 1
    return binary_convolution_reference(activations, 2 * weights.astype(int) - 1, conv) * (
        2 if zero_one else 1
    )


def binary_kernel(
    conv: Convolution,
    packing: Packing,
    weights: np.ndarray,
    kernels: KernelTarget,
    epilogue: Epilogue,
    ending: Ending,
    *,
    border_in_bytes: bool = False,
) -> tuple[tirx.PrimFunc, np.ndarray]:
    """The kernel that this layer gets, and its weights as they lie in memory."""
    packed = pack_weights(weights, packing.word)
    if depthwise.is_depthwise(conv, packed=True):
        strip = depthwise.default_strip(conv, packing, kernels)
        kernel = depthwise.depthwise_convolution(conv, packing, epilogue, ending=ending, strip=strip)
        return kernel, depthwise.in_tap_order(packed)
    tile = kernels.tile_for_bits(conv)
    kernel = binary_convolution(
        conv, packing, tile, kernels, epilogue, ending=ending, border_in_bytes=border_in_bytes
    )
    return kernel, lay_out_bits(packed, conv.groups, tile)
