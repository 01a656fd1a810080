"""Who is measured, and how each is made to run a case.

A case is a folder, written by `prepare.py`:

    input.npy                      float32, channels first
    binary.onnx, binary.pt         the binary network; float.onnx, float.pt: the same network in float
    int8.onnx                      float.onnx after ONNX Runtime's static quantization (absent without it)
    ours, ours_channels_last       artifacts; the second takes and gives channels last (layers only)
    bitserial.npz                  operands of TVM's own bit-serial kernel (layers only)

A peer opens the folder with a number of threads and gives (run, read): `run()` is one inference by
the call that its users make, arrays in and arrays out; `read(run())` is the output as an array. Where a
library can be called with inputs already in place, a second peer does that: `ALONE`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import burst_of
from bibench_tvm.measuring.turns import Contestant

# A float layer before a sign rounds differently in each library, and a sign that flips is seen in the output.
FLIPS = 0.1

Running = tuple[Callable[[], Any], Callable[[Any], np.ndarray]]


@dataclass(frozen=True)
class Peer:
    """library: its module; those of one library share a process. package: what pip calls it. computes: the
    output it must give, `expected *.npy` of the case. needs: the file without which it takes no part.
    tolerance of a float network: relative to the largest output; None for int8, which differs by design."""

    library: str
    package: str
    computes: str
    open: Callable[[Path, int], Running]
    needs: str
    tolerance: float | None = 1e-4

    def contestant(self, case: Path, threads: int) -> Contestant:
        run, read = self.open(case, threads)
        tolerance = self.tolerance
        if self.computes != "float":
            # Of a mixed network a flip changes all that follows; `prepare` verified it layer by layer.
            tolerance = None if case.name.startswith("mixed") else FLIPS
            tolerance = 0.0 if case.name.startswith("layer") else tolerance
        expected = np.load(case / f"expected {self.computes}.npy")
        return Contestant(lambda: read(run()), burst_of(run), expected, tolerance)


def _input(case: Path) -> np.ndarray:
    return np.load(case / "input.npy")


def _artifact(folder: str, *, alone: bool = False) -> Callable[[Path, int], Running]:
    def open_artifact(case: Path, _: int) -> Running:
        import tvm

        from bibench_tvm.artifact.artifact import MODEL, load, load_vm

        x = _input(case)
        if folder == "ours_channels_last":
            x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        if alone:
            main, tensor = load_vm(case / folder / MODEL)["main"], tvm.runtime.tensor(x)
            return lambda: main(tensor), lambda y: y.numpy()
        artifact = load(case / folder)
        return lambda: artifact.run(x), lambda y: y[0] if isinstance(y, tuple) else y

    return open_artifact


def _onnx_runtime(file: str, *, alone: bool = False) -> Callable[[Path, int], Running]:
    def open_session(case: Path, threads: int) -> Running:
        from bibench_tvm.measuring.peers.onnx_runtime import OnnxRuntime

        opened, x = OnnxRuntime(case / file, threads), _input(case)
        if alone:
            return opened.bound([x])
        (given,) = opened.session.get_inputs()
        return lambda: opened.session.run(None, {given.name: x}), lambda outputs: outputs[0]

    return open_session


def _openvino(file: str, *, binary: bool = False, alone: bool = False) -> Callable[[Path, int], Running]:
    def open_model(case: Path, threads: int) -> Running:
        import openvino

        from benchmarks.openvino_binary import to_binary

        core = openvino.Core()
        model = core.read_model(case / file)
        if binary:
            to_binary(model)
        # Without the hint its float layers are computed in bfloat16 where the processor can.
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        compiled = core.compile_model(model, "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"})
        x = _input(case)
        if not alone:
            return lambda: compiled(x), lambda outputs: np.array(outputs[0])
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(x))

        def run() -> Any:
            request.infer()
            return request

        return run, lambda done: done.get_output_tensor().data.copy()

    return open_model


def _pytorch(case: Path, threads: int) -> Running:
    import torch

    torch.set_num_threads(threads)
    network = torch.load(case / "float.pt", weights_only=False)
    x = torch.from_numpy(_input(case))

    def run() -> Any:
        with torch.inference_mode():
            return network(x)

    return run, lambda y: y.numpy()


def _bitserial(case: Path, _: int) -> Running:
    import tvm

    from bibench_tvm.compiling.processors import resolve_target
    from bibench_tvm.measuring.peers.bitserial import bitserial_function
    from schedules.geometry import Convolution

    operands = np.load(case / "bitserial.npz")
    x, kernel = operands["x"], operands["kernel"]
    strides: Any = (int(operands["stride"]),) * 2
    padding: Any = (int(operands["padding"]),) * 4
    batch, height, width, channels = x.shape
    kernel_height, kernel_width, _, out_channels = kernel.shape
    image = batch, height, width, channels, out_channels
    conv = Convolution(*image, (kernel_height, kernel_width), strides, padding)
    function = tvm.compile(bitserial_function(conv), target=resolve_target("host").tvm)
    y = tvm.runtime.tensor(np.zeros(operands["out_shape"], "float32"))
    arguments = [tvm.runtime.tensor(x), tvm.runtime.tensor(kernel), y]

    def run() -> Any:
        function(*arguments)
        return y

    return run, lambda done: np.moveaxis(done.numpy(), -1, 1)


ALONE = ", the network alone"
_TVM, _ORT, _OPENVINO = "tvm", "onnxruntime", "openvino"


def _both(
    name: str, library: str, computes: str, open_it: Callable[..., Any], file: str, *rest: Any, **options: Any
) -> dict[str, Peer]:
    """A library as its users call it, and the network alone."""
    return {
        name + (ALONE if alone else ""): Peer(
            library,
            "apache-tvm" if library == _TVM else library,
            computes,
            open_it(file, alone=alone, **options),
            file,
            *rest,
        )
        for alone in (False, True)
    }


PEERS = {
    **_both("ours", _TVM, "binary", _artifact, "ours"),
    "ours, channels last": Peer(
        _TVM, "apache-tvm", "channels last", _artifact("ours_channels_last"), "ours_channels_last"
    ),
    **_both("OpenVINO binary", _OPENVINO, "binary", _openvino, "binary.onnx", binary=True),
    **_both("OpenVINO int8", _OPENVINO, "float", _openvino, "int8.onnx", None),
    **_both("ONNX Runtime int8", _ORT, "float", _onnx_runtime, "int8.onnx", None),
    **_both("OpenVINO fp32", _OPENVINO, "float", _openvino, "float.onnx"),
    **_both("ONNX Runtime fp32", _ORT, "float", _onnx_runtime, "float.onnx"),
    "PyTorch fp32": Peer("torch", "torch", "float", _pytorch, "float.pt"),
    "TVM topi bit-serial": Peer(_TVM, "apache-tvm", "bitserial", _bitserial, "bitserial.npz"),
}


def limit_threads(threads: int) -> None:
    """For what reads the environment when it is first imported; 0 leaves it to each library."""
    for variable in ("TVM_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.pop(variable, None)
        if threads:
            os.environ[variable] = str(threads)
