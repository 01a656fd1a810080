"""64-bit integers on 32-bit processors, which have no instructions to divide or to convert them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bibench_tvm import BibenchError, compile_model
from bibench_tvm.compiling.standalone import library
from bibench_tvm.compiling.standalone.helpers import helpers_for
from rpc.emulation import arm32, cortex_m
from tests.bibench_tvm.compiling.c_library import network, record

EDGES = [0, 1, -1, 3, 2**24 + 1, 2**25 + 3, -(2**31), 2**32 - 1, 2**32, 2**33 + 257, 2**40 + 2**16]
EDGES += [
    2**40 + 2**16 + 1,
    2**53 - 1,
    2**62 + 2**38,
    -(2**62) - 2**38 - 1,
    2**63 - 1,
    -(2**63),
    2**63 - 2**39,
]
FLOATS = [0.0, -0.0, 0.99, -0.99, 1.5, -2.5, 2.0**23 + 1, 2.0**24 - 1, -(2.0**31), 2.0**40 + 2.0**18]
FLOATS += [-(2.0**62), 1e-40, 2.0**63 - 2.0**39, -(2.0**63), 8388607.5, 16777216.0, 3e9, -3e9]


class Arithmetic(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.div(a, b, rounding_mode="trunc"), a // b, a % b, torch.fmod(a, b),
            a // 7, a % 1000, a.float(), x.long(),
        )  # fmt: skip


def operands() -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    size = 256
    a = chance.integers(-(2**63), 2**63 - 1, size) >> chance.integers(0, 63, size)
    b = chance.integers(-(2**63), 2**63 - 1, size) >> chance.integers(0, 63, size)
    x = np.ldexp(chance.standard_normal(size), chance.integers(-3, 60, size)).astype(np.float32)
    a[: len(EDGES)], x[: len(FLOATS)] = EDGES, FLOATS
    b[b == 0] = 1
    return [a, b, x]


@pytest.mark.parametrize("target", ["armv7", "cortex-m4", "cortex-m55"])
def test_arithmetic(target: str, tmp_path: Path) -> None:
    model, given = Arithmetic().eval(), operands()
    inputs = tuple(torch.from_numpy(array) for array in given)
    artifact = compile_model(model, inputs, target=target, out=tmp_path, standalone=True)
    assert not {"__divdi3", "__fixsfdi", "__floatdisf"} & set(record(artifact).undefined_symbols)
    if target == "armv7":
        [found] = arm32.run_network(network(artifact), [given], cpu="cortex-a7", timeout_s=60)
    else:
        run = cortex_m.run_network(network(artifact), [given], cpu=target, timeout_s=60)
        [found] = run.outputs
        assert run.stack_bytes <= record(artifact).stack_bytes + 512
    for i, (ours, theirs) in enumerate(zip(found, model(*inputs), strict=True)):
        assert np.array_equal(ours, theirs.numpy()), (i, np.flatnonzero(ours != theirs.numpy()))


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("target", ["armv7", "cortex-m4"])
def test_resizing(method: str, target: str, tmp_path: Path) -> None:
    scale = 2.0 if method == "bilinear" else 0.5
    model = torch.nn.Upsample(scale_factor=scale, mode=method).eval()
    options = {"target": target, "out": tmp_path, "standalone": True, "verify": 1}
    artifact = compile_model(model, torch.zeros(1, 3, 6, 8), **options)
    assert artifact.record.verification.passed, artifact.record.verification.reason
    assert set(record(artifact).undefined_symbols) <= {"memcpy", "memset"}


class Functions(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.round(x), torch.pow(x, y), torch.atan(x), torch.asin(x), torch.acos(x)


@pytest.mark.parametrize("target", ["armv7", "cortex-m4", "cortex-m55"])
def test_functions_of_libm(target: str, tmp_path: Path) -> None:
    chance, size = np.random.default_rng(0), 512
    x = np.ldexp(chance.standard_normal(size), chance.integers(-20, 26, size)).astype(np.float32)
    y = chance.normal(0, 4, size).astype(np.float32)
    y[::3] = np.round(y[::3])
    edges = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1.0, -1.0, 8388607.5, 2.0**23 + 1, -0.3, np.inf, -np.inf]
    edges.append(np.nan)
    x[: len(edges) ** 2] = np.repeat(np.array(edges, np.float32), len(edges))
    y[: len(edges) ** 2] = np.tile(np.array(edges, np.float32), len(edges))
    model, inputs = Functions().eval(), (torch.from_numpy(x), torch.from_numpy(y))
    artifact = compile_model(model, inputs, target=target, out=tmp_path, standalone=True)
    assert "nearbyintf" not in record(artifact).undefined_symbols
    assert cortex_m.lacking(record(artifact).undefined_symbols) == []
    if target == "armv7":
        [found] = arm32.run_network(network(artifact), [[x, y]], cpu="cortex-a7", timeout_s=60)
    else:
        [found] = cortex_m.run_network(network(artifact), [[x, y]], cpu=target, timeout_s=60).outputs
    rounded, *others = (output.numpy() for output in model(*inputs))
    assert np.array_equal(found[0], rounded, equal_nan=True)
    assert np.array_equal(np.signbit(found[0]), np.signbit(rounded))
    for ours, theirs in zip(found[1:], others, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-7, atol=1e-44)


def test_what_is_there_already() -> None:
    text = "declare i32 @llvm.ctlz.i32(i32, i1 immarg)\n"
    found = helpers_for(["memcpy", "__floatdisf", "__floatundisf"], text, "nounwind")
    assert found.count("@bibench_to_float(i64 %a) noinline") == 1 and "declare" not in found
    assert helpers_for(["memcpy", "expf"], "", "nounwind") == ""


def test_what_nobody_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "helpers_for", lambda *_: "")
    given = tuple(torch.from_numpy(array) for array in operands())
    with pytest.raises(BibenchError, match="it calls __divdi3, .*, and neither C's library has that"):
        compile_model(Arithmetic().eval(), given, target="cortex-m4", out=tmp_path, standalone=True)
