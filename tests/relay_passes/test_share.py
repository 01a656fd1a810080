"""Kernels that are too small for a second thread."""

from dataclasses import replace

import pytest

from relay_passes.ir.operators import Contraction
from relay_passes.kernels.share import shared_or_serial
from schedules.geometry import Convolution
from schedules.kernels.convolution import float_convolution
from schedules.kernels.reduction import reduction_kernel
from schedules.parts.epilogue import plain
from schedules.targets.x86_avx2 import X86_AVX2


@pytest.mark.parametrize(("rows", "shared"), [(8, False), (1000, True)])
def test_by_what_a_kernel_reads(rows, shared):
    """1.2 MB take 120 us, and 20 are enough."""
    extents = (rows, 300, 1)
    kernel = reduction_kernel(extents, (rows, 1), extents, "float32", "max")
    made = shared_or_serial(kernel, X86_AVX2, None, binary=False)
    assert "T.parallel" in kernel.script()
    assert ("T.parallel" in made.script()) == shared
    slow = replace(X86_AVX2, wake_ns=60_000)
    assert "T.parallel" not in shared_or_serial(kernel, slow, None, binary=False).script()


@pytest.mark.parametrize(
    ("channels", "binary", "shared"), [(8, False, False), (64, False, True), (64, True, False)]
)
def test_by_its_products(channels, binary, shared):
    """At the rate of floats 1.05 M take 26 us, and at that of bits 3.5."""
    conv = Convolution(1, 16, 16, channels, 64)
    tile = X86_AVX2.float_tile(conv)
    kernel = float_convolution(conv, (1, 16, 16, channels), tile, X86_AVX2, plain(conv.out_shape, "float32"))
    layer = Contraction(name="a", op="conv2d", conv=conv)
    made = shared_or_serial(kernel, X86_AVX2, layer, binary=binary)
    assert ("T.parallel" in made.script()) == shared
