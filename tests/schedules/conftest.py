"""Machines that kernels are called on: this one, and Arm processors under QEMU."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.target import codegen

from bibench_tvm.artifact.host import describe_host, processor_features
from rpc import emulated
from rpc.emulation import arm32 as emulated32
from schedules.codegen import generate_code
from schedules.targets.choose import executable, kernel_target
from schedules.targets.kernel_target import KernelTarget

Spec = tuple[Sequence[int], str]


@dataclass
class Machine:
    """kernels: those that a compiler would choose for it."""

    target: tvm.target.Target
    kernels: KernelTarget
    folder: Path

    def call(
        self, kernel: tirx.PrimFunc, inputs: Sequence[np.ndarray], outputs: Sequence[Spec]
    ) -> list[np.ndarray]:
        """What the kernel writes to arrays of these shapes, which are full of noise before."""
        noise = [np.frombuffer(b"\xa5" * _size(*spec), spec[1]).reshape(spec[0]).copy() for spec in outputs]
        return self._run(kernel, [*map(np.ascontiguousarray, inputs), *noise])[len(inputs) :]

    def _compiled(self, kernel: tirx.PrimFunc) -> tvm.runtime.Module:
        named = kernel.with_attr("global_symbol", "kernel")
        return generate_code(tvm.IRModule({"kernel": named}), self.target)

    def _run(self, kernel: tirx.PrimFunc, arrays: list[np.ndarray]) -> list[np.ndarray]:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        self._compiled(kernel)["kernel"](*tensors)
        return [tensor.numpy() for tensor in tensors]


@dataclass
class Host(Machine):
    """This machine; each: for all kernels that it can execute, with no more features than these need."""

    each: list[Machine]

    def of(self, kernels: KernelTarget) -> Machine:
        """With the features that such kernels need, where this machine can execute them."""
        return next((machine for machine in self.each if machine.kernels.name == kernels.name), self)

    def some(self, number: int) -> Machine:
        """One of them; another for the next number."""
        return self.each[number % len(self.each)]


class Arm32(Machine):
    def _run(self, kernel: tirx.PrimFunc, arrays: list[np.ndarray]) -> list[np.ndarray]:
        path = self.folder / "kernel.o"
        self._compiled(kernel).mod.write_to_file(str(path), "o")
        return emulated32.run_kernel([path], "kernel", arrays, timeout_s=60)


@dataclass
class Arm64(Machine):
    """Calls through a network of one operator, which is what the emulated board runs."""

    cpu: str = "cortex-a72"

    def call(
        self, kernel: tirx.PrimFunc, inputs: Sequence[np.ndarray], outputs: Sequence[Spec]
    ) -> list[np.ndarray]:
        builder = relax.BlockBuilder()
        arrays = [*map(np.ascontiguousarray, inputs)]
        params = [relax.Var(f"p{i}", relax.TensorType(a.shape, str(a.dtype))) for i, a in enumerate(arrays)]
        types = [relax.TensorType(tuple(shape), dtype) for shape, dtype in outputs]
        with builder.function("main", params):
            made = relax.call_tir(
                builder.add_func(kernel, "kernel"), params, types if len(types) > 1 else types[0]
            )
            builder.emit_func_output(builder.emit(made))
        path = self.folder / "network.so"
        generate_code(builder.get(), self.target).export_library(str(path), fcompile=_link)
        return emulated.run(path, [arrays], cpu=self.cpu, timeout_s=60)[0]


def _size(shape: Sequence[int], dtype: str) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _link(output: str, objects: list[str], options: object = None) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", "ld.lld", "-shared", "-o", output, *objects], check=True)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    def described() -> tuple[tvm.target.Target, KernelTarget, Path]:
        description, kernels = describe_host()
        return tvm.target.Target(description), kernels, tmp_path_factory.mktemp("host")

    names = [k.name for k in executable(str(codegen.llvm_get_system_triple()), processor_features())]
    each = []
    for name in names:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIBENCH_HOST", name)
            each.append(Machine(*described()))
    return Host(*described(), each)


@pytest.fixture(scope="session")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """An absent emulator is a failure, with the line to type: a skipped test would look like a passed one."""
    if problem := emulated.missing():
        pytest.fail(problem)
    triple = "aarch64-linux-gnu"
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": "cortex-a72"})
    return Arm64(target, kernel_target(triple, ["neon"]), tmp_path_factory.mktemp("arm64"))


@pytest.fixture(scope="session")
def arm64_dotprod(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return cortex_a76(tmp_path_factory.mktemp("arm64_dotprod"), ["neon", "dotprod"])


@pytest.fixture(scope="session")
def arm64_half(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """With arithmetic in float16."""
    return cortex_a76(tmp_path_factory.mktemp("arm64_half"), ["neon", "dotprod", "fullfp16"])


def cortex_a76(folder: Path, features: list[str]) -> Machine:
    """One of whose features the kernels take these."""
    if problem := emulated.missing():
        pytest.fail(problem)
    triple, cpu = "aarch64-linux-gnu", "cortex-a76"
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    return Arm64(target, kernel_target(triple, features), folder, cpu)


@pytest.fixture(scope="session")
def arm32(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    features = ["neon", "vfp4"]
    description = {
        "kind": "llvm",
        "mtriple": "armv7a-linux-gnueabihf",
        "mcpu": "cortex-a7",
        "mfloat-abi": "hard",
    }
    target = tvm.target.Target({**description, "mattr": [f"+{f}" for f in features]})
    return Arm32(target, kernel_target("armv7a-linux-gnueabihf", features), tmp_path_factory.mktemp("arm32"))


@pytest.fixture(params=["arm64", "arm32"])
def arm(request: pytest.FixtureRequest) -> Machine:
    return request.getfixturevalue(request.param)
