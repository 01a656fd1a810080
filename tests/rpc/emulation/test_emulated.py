"""Compiled networks and kernels on emulated Arm processors, against numpy."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from rpc import emulated
from rpc.emulation import arm32, qemu, tensor_file


def link(output: str, objects: list[str], options: object = None) -> None:
    """What `export_library` calls to link: zig's linker, which needs no system libraries for this."""
    subprocess.run(
        [sys.executable, "-m", "ziglang", "ld.lld", "-shared", "-s", "-o", output, *objects], check=True
    )


def build(module: tvm.IRModule, path: Path, cpu: str = "cortex-a72") -> Path:
    target = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": cpu})
    tvm.compile(module, target=target).export_library(str(path), fcompile=link)
    return path


def unary(shape: tuple[int, ...], dtype: str, body) -> tvm.IRModule:
    """A network of one input x whose `main` returns what `body(x)` gives."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor(shape, dtype))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.normalize(body(x)))
    return builder.get()


@pytest.fixture(scope="module")
def board() -> None:
    """An absent emulator is a failure, with the line to type: a skipped test would look like a passed one."""
    problem = emulated.missing()
    if problem:
        pytest.fail(problem)


def test_network_with_nested_outputs_of_every_kind(board: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 32)).astype("float32")
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((4, 64), "float32"))
    shift = relax.Var("shift", R.Tensor((), "float32"))
    dtypes = ["int8", "uint8", "int16", "int32", "uint32"]
    with builder.function("main", [x, shift]):
        hidden = builder.emit(R.nn.relu(R.matmul(x, relax.const(weights))))
        bits = builder.emit(R.greater(hidden, shift))
        casts = relax.Tuple([builder.emit(R.astype(hidden, dtype)) for dtype in dtypes])
        builder.emit_func_output(relax.Tuple([hidden, relax.Tuple([bits, casts])]))
    model = build(builder.get(), tmp_path / "model.so")

    samples = [[rng.normal(size=(4, 64)).astype("float32"), np.float32(3 * i)] for i in range(3)]
    results = emulated.run(model, samples, threads=2, timeout_s=60)

    assert len(results) == 3
    for (sample, threshold), (hidden_out, bits_out, *casts_out) in zip(samples, results, strict=True):
        np.testing.assert_allclose(hidden_out, np.maximum(sample @ weights, 0), rtol=1e-4, atol=1e-4)
        assert bits_out.dtype == bool
        np.testing.assert_array_equal(bits_out, hidden_out > threshold)
        assert [str(cast.dtype) for cast in casts_out] == dtypes
        for cast in casts_out:
            np.testing.assert_array_equal(cast, hidden_out.astype(cast.dtype))


def test_a_processor_runs_its_own_instructions_only(board: None, tmp_path: Path) -> None:
    """float16 arithmetic is Armv8.2: a Cortex-A76 has it, and on a Cortex-A72 it is a crash."""
    model = build(unary((64,), "float16", lambda x: R.add(x, x)), tmp_path / "model.so", cpu="cortex-a76")
    x = np.arange(64, dtype="float16")
    [[doubled]] = emulated.run(model, [[x]], cpu="cortex-a76", timeout_s=60)
    np.testing.assert_array_equal(doubled, 2 * x)
    with pytest.raises(
        emulated.EmulationFailed, match=r"On cortex-a72, after 0 of 1 samples: .* SIGILL: it used an"
    ):
        emulated.run(model, [[x]], cpu="cortex-a72", timeout_s=60)


def test_a_hang_is_a_sentence(board: None, tmp_path: Path) -> None:
    model = build(unary((2048, 2048), "float32", lambda x: R.matmul(x, x)), tmp_path / "model.so")
    with pytest.raises(
        emulated.EmulationFailed, match=r"after 0 of 1 samples: .* did not end within 0\.5 seconds"
    ):
        emulated.run(model, [[np.zeros((2048, 2048), "float32")]], timeout_s=0.5)


def test_wrong_inputs_and_wrong_files_are_sentences(board: None, tmp_path: Path) -> None:
    model = build(unary((4,), "float32", lambda x: R.add(x, x)), tmp_path / "model.so")
    right = np.ones(4, "float32")
    with pytest.raises(emulated.EmulationFailed, match="after 1 of 2 samples: Running the network failed"):
        emulated.run(model, [[right], [np.ones(5, "float32")]], timeout_s=60)
    with pytest.raises(emulated.EmulationFailed, match="Running the network failed"):
        emulated.run(model, [[right.astype("int32")]], timeout_s=60)
    with pytest.raises(TypeError, match="complex64"):
        emulated.run(model, [[right.astype("complex64")]], timeout_s=60)
    with pytest.raises(emulated.EmulationFailed, match="no-such-cpu"):
        emulated.run(model, [[right]], cpu="no-such-cpu", timeout_s=60)
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"not a library")
    with pytest.raises(emulated.EmulationFailed, match="Loading the model failed"):
        emulated.run(garbage, [[right]], timeout_s=60)


def test_nothing_is_missing_silently(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIBENCH_SYSROOTS", str(tmp_path))
    assert "ld-linux-aarch64.so.1 is not installed. Type: apt-get install" in (emulated.missing() or "")
    monkeypatch.setenv("PATH", "")
    assert "qemu-aarch64 is not installed. Type: apt-get install" in (emulated.missing() or "")
    with pytest.raises(emulated.EmulationUnavailable):
        emulated.run(tmp_path / "model.so", [], timeout_s=1)


@I.ir_module(s_tir=True)
class Kernels:
    @T.prim_func(s_tir=True)
    def differences(
        a: T.Buffer((64,), "uint8"), w: T.Buffer((64,), "uint8"), counts: T.Buffer((64,), "uint8")
    ):
        for i in range(4):
            for lane in T.vectorized(16):
                with T.sblock("count"):
                    j = T.axis.spatial(64, i * 16 + lane)
                    counts[j] = T.popcount(a[j] ^ w[j])

    @T.prim_func(s_tir=True)
    def softplus(x: T.Buffer((1000,), "float32"), y: T.Buffer((1000,), "float32")):
        exponential = T.alloc_buffer((1000,), "float32")
        for i in T.parallel(1000):
            with T.sblock("exponential"):
                j = T.axis.spatial(1000, i)
                exponential[j] = T.exp(x[j])
        for i in range(1000):
            with T.sblock("logarithm"):
                j = T.axis.spatial(1000, i)
                y[j] = T.log(exponential[j] + T.float32(1))


@pytest.fixture(scope="module")
def kernels32(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("kernels") / "kernels.o"
    target = {"kind": "llvm", "mtriple": "armv7a-linux-gnueabihf", "mcpu": "cortex-a7", "mfloat-abi": "hard"}
    target["mattr"] = ["+neon", "+vfp4"]
    tvm.compile(Kernels, target=tvm.target.Target(target)).mod.write_to_file(str(path), "o")
    return [path]


def test_popcount_on_32_bits(kernels32: list[Path]) -> None:
    rng = np.random.default_rng(0)
    a, w = rng.integers(0, 256, (2, 64), dtype="uint8")
    after = arm32.run_kernel(kernels32, "differences", [a, w, np.zeros(64, "uint8")], timeout_s=60)
    np.testing.assert_array_equal(after[0], a)
    np.testing.assert_array_equal(after[2], np.unpackbits(a ^ w).reshape(64, 8).sum(axis=1))


def test_workspace_threads_and_libm_on_32_bits(kernels32: list[Path]) -> None:
    x = np.linspace(-5, 5, 1000, dtype="float32")
    _, y = arm32.run_kernel(kernels32, "softplus", [x, np.zeros_like(x)], timeout_s=60)
    np.testing.assert_allclose(y, np.log1p(np.exp(x)), rtol=1e-5)


def test_a_kernel_refuses_the_wrong_array(kernels32: list[Path]) -> None:
    x = np.zeros(999, "float32")
    with pytest.raises(arm32.EmulationFailed, match="refused its arguments: .*argument #0"):
        arm32.run_kernel(kernels32, "softplus", [x, x], timeout_s=60)


def test_damaged_files_are_refused(
    kernels32: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every length in a file is checked before it is believed, in C and in Python."""
    whole = tmp_path / "whole"
    tensor_file.write(whole, [[np.arange(6, dtype="int16").reshape(2, 3)]])
    data = whole.read_bytes()
    assert tensor_file.read(whole)[1][0][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    damaged = {
        "is not a file of tensors": b"\xff" + data[1:],
        "ends in the middle": data[:-1],
        "16": data[:16] + b"\xff\xff\xff\xff" + data[20:],  # the number of dimensions
        "impossible size": data[:20] + b"\xff" * 8 + data[28:],  # the first dimension
        "has 255": data[:36] + b"\xff" + data[37:],  # the number of bytes
    }
    for words, content in damaged.items():
        file = tmp_path / "damaged"
        file.write_bytes(content)
        monkeypatch.setattr(tensor_file, "write", lambda path, _, content=content: path.write_bytes(content))
        with pytest.raises(arm32.EmulationFailed, match=words):
            arm32.run_kernel(kernels32, "differences", [], timeout_s=60)
        with pytest.raises(qemu.EmulationFailed):
            qemu.received(file, 1)
