"""No kernel adds to a vector whose length is no power of 2, whatever the number of channels.

LLVM takes such a vector apart, number by number, where a loop carries it."""

from collections.abc import Iterator

import pytest
import tvm_ffi
from tvm import ir, tirx

from schedules.geometry import Convolution
from schedules.kernels.depthwise import default_strip, depthwise_convolution
from schedules.kernels.pooling import Pooling, pooling_kernel
from schedules.kernels.winograd import winograd_convolution
from schedules.parts.bits import Packing
from schedules.parts.epilogue import plain
from schedules.parts.quantizer import Quantizer
from schedules.records.kinds.tiled import TiledTask
from schedules.targets.choose import ALL
from schedules.targets.kernel_target import KernelTarget

CHANNELS = [10, 12, 20, 24, 40, 48, 56, 72, 112]
BORDER = (1, 1, 1, 1)


def kernels(channels: int, target: KernelTarget) -> Iterator[tuple[str, tirx.PrimFunc]]:
    window = Convolution(1, 9, 9, channels, channels, (3, 3), padding=BORDER, groups=channels)
    for average in (False, True):
        pool = Pooling(window, "float32", average)
        yield f"pooling {average}", pooling_kernel(pool, plain(window.out_shape, "float32"))
    for packing, dtype in (
        (None, "float32"),
        (Packing(channels, 8, channels, BORDER), "int32"),
        (Packing(channels, 8, halo=BORDER, quantizer=Quantizer(0.02)), "int32"),
    ):
        strip, epilogue = default_strip(window, packing, target), plain(window.out_shape, dtype)
        kernel = depthwise_convolution(window, packing, epilogue, ending="dot", strip=strip)
        yield f"depthwise {packing}", kernel
    conv = Convolution(1, 9, 9, 64, channels, (3, 3))
    packed = Packing(64, target.word_for(conv))
    for task in (
        TiledTask(conv=conv, outputs=(("float32", None),)),
        TiledTask(conv=conv, packing=packed, outputs=(("int32", None),)),
    ):
        yield task.title, task.bare_kernel(task.default(target), target)
    stem = Convolution(1, 32, 32, 3, channels, (3, 3), padding=BORDER)
    if tile := target.winograd_tile(stem):
        yield "winograd", winograd_convolution(stem, tile, target, plain(stem.out_shape, "float32"))


def lengths_added_to(kernel: tirx.PrimFunc) -> set[int]:
    """Of the vectors that a store writes back to where it has read them."""
    found: set[int] = set()

    def look(stored: tirx.BufferStore) -> None:
        read: list[ir.TensorLoad] = []
        tvm_ffi.structural_walk(stored.value, (ir.TensorLoad, read.append))
        index = stored.indices[-1]
        if isinstance(index, tirx.Ramp) and any(load.source.same_as(stored.buffer) for load in read):
            found.add(int(index.lanes))

    tvm_ffi.structural_walk(kernel.body, (tirx.BufferStore, look))
    return found


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_what_is_added_to_is_a_whole_vector(target: KernelTarget) -> None:
    found = {
        f"{channels} channels, {name}": lengths_added_to(kernel)
        for channels in CHANNELS
        for name, kernel in kernels(channels, target)
    }
    assert any(found.values())
    wrong = {name: lengths for name, lengths in found.items() if any(n & (n - 1) for n in lengths)}
    assert not wrong
