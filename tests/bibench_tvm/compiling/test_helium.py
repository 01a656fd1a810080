"""Sums that are multiplied by powers of two, on a processor that converts with bits behind the point."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bibench_tvm import compile_model
from rpc.emulation import cortex_m
from schedules.fence_conversions import fence_conversions
from tests.bibench_tvm.compiling.c_library import network, samples

LANES = (2, 3, 5, 6, 7, 9, 11, 13, 15, 22)


def signs(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


class Attention(torch.nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.softmax(signs(q) @ signs(k).transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        return (scores > 0.1).float() @ signs(v)


class Scaled(torch.nn.Module):
    """A product of bits by a power of two for each width."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = torch.nn.ParameterList(torch.randn(lanes, 21) for lanes in LANES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        powers = (2.0 ** -(1 + i % 2) for i in range(len(LANES)))
        products = (signs(x) @ signs(w).T for w in self.weights)
        return tuple(y * power for y, power in zip(products, powers, strict=True))


@pytest.mark.parametrize("shape", [(3, 12, 11), (1, 5, 3), (2, 9, 7), (2, 7, 16)])
def test_attention_of_zeros_and_ones(shape: tuple[int, int, int], tmp_path: Path) -> None:
    inputs = tuple(torch.randn(1, *shape) for _ in range(3))
    options = {"target": "cortex-m55", "out": tmp_path, "standalone": True, "verify": 2}
    found = compile_model(Attention().eval(), inputs, **options).record.verification
    assert found.passed and found.max_abs_error == 0, found.reason


def test_sums_by_powers_of_two(tmp_path: Path) -> None:
    model = Scaled().eval()
    inputs = torch.zeros(4, 21)
    artifact = compile_model(model, inputs, target="cortex-m55", out=tmp_path, standalone=True)
    [given] = samples(artifact, 1)
    [found] = cortex_m.run_network(network(artifact), [given], cpu="cortex-m55", timeout_s=60).outputs
    for ours, theirs in zip(found, model(torch.from_numpy(given[0])), strict=True):
        assert np.array_equal(ours, theirs.detach().numpy()), ours.shape


def test_fences_stand_between_conversions_and_products() -> None:
    text = """  %1 = sitofp <11 x i32> %0 to <11 x float>, !dbg !5
  %2 = fmul <11 x float> %1, splat (float 5.000000e-01)
  %a.b = fptoui <8 x half> %2 to <8 x i16>
  %3 = uitofp i32 %x to float
"""
    lines = fence_conversions(text).splitlines()
    assert lines == [
        '  %"unfenced 1" = sitofp <11 x i32> %0 to <11 x float>, !dbg !5',
        '  %1 = call <11 x float> @llvm.arithmetic.fence.v11f32(<11 x float> %"unfenced 1")',
        "  %2 = fmul <11 x float> %1, splat (float 5.000000e-01)",
        '  %"unfenced a.b" = call <8 x half> @llvm.arithmetic.fence.v8f16(<8 x half> %2)',
        '  %a.b = fptoui <8 x half> %"unfenced a.b" to <8 x i16>',
        "  %3 = uitofp i32 %x to float",
        "declare <11 x float> @llvm.arithmetic.fence.v11f32(<11 x float>)",
        "declare <8 x half> @llvm.arithmetic.fence.v8f16(<8 x half>)",
    ]
