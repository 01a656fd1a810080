"""ONNX Runtime: a layer as an ONNX file, its int8 form by static quantization, and a session that runs it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm

from rpc.machine import describe
from rpc.onnx_board import OnnxRuntime
from schedules.geometry import Convolution

if TYPE_CHECKING:
    from torch import nn

    from rpc.session import Board

__all__ = [
    "OnnxOnBoard",
    "OnnxRuntime",
    "export",
    "installed",
    "is_on",
    "quantize",
    "saturates",
    "saturates_here",
    "write_layer",
]


def installed() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def is_on(board: Board) -> bool:
    """Whether this board has ONNX Runtime. One that is emulated has none."""
    try:
        return bool(board.remote.get_function("bibench.board.onnx_runtime.installed")())
    except AttributeError:
        return False


class OnnxOnBoard:
    """A session on a board, with the `run` and `time` of a `Network`. One output is read."""

    def __init__(self, board: Board, file: Path, threads: int):
        self._board, self._threads = board, threads
        self._file = board.upload(file)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with self._board.failing("running ONNX Runtime"):
            return [self._call("run", inputs).numpy()]

    def time(self, inputs: Sequence[np.ndarray], *, number: int, repeat: int) -> list[float]:
        with self._board.failing("timing ONNX Runtime"):
            return json.loads(self._call("time", inputs, number, repeat))

    def _call(self, name: str, inputs: Sequence[np.ndarray], *numbers: int) -> Any:
        remote = self._board.remote
        tensors = [tvm.runtime.tensor(array, remote.cpu(0)) for array in inputs]
        call = remote.get_function(f"bibench.board.onnx_runtime.{name}")
        return call(self._file, self._threads, *numbers, *tensors)


def write_layer(file: Path, conv: Convolution, weights: np.ndarray, *, linear: bool) -> None:
    """A layer without bias as an ONNX file: x float32 [N, C, H, W], or [rows, C] of a linear layer; weights
    float32 [O, KH, KW, C / groups]."""
    from onnx import TensorProto, checker, helper, numpy_helper, save_model

    n, height, width, out = conv.out_shape
    x_shape: tuple[int, ...] = (conv.batch, conv.channels, conv.height, conv.width)
    y_shape: tuple[int, ...] = (n, out, height, width)
    if linear:
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        x_shape, y_shape = (n * height * width, conv.channels), (n * height * width, out)
        stored = weights.reshape(out, -1).T
    else:
        geometry = dict(strides=conv.strides, pads=conv.padding, dilations=conv.dilation, group=conv.groups)
        node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=conv.kernel, **geometry)
        stored = weights.transpose(0, 3, 1, 2)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(stored), "w")],
    )
    # Versions that runtimes of some years ago read: a board may have one.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save_model(model, str(file))


def export(network: nn.Module, inputs: Sequence[np.ndarray], file: Path) -> np.ndarray:
    """Writes a network in PyTorch as ONNX, and gives its first output: with the exporter that needs no
    package besides, and says at length that there is another. The inputs are in the order of its forward's
    arguments."""
    import torch
    from torch.utils import _pytree as pytree

    network = network.eval()
    examples = tuple(torch.from_numpy(x) for x in inputs)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, examples, str(file), dynamo=False)
        return pytree.tree_leaves(network(*examples))[0].numpy()


def saturates(machine: str, features: Collection[str]) -> bool:
    """Whether ONNX Runtime's int8 kernels are wrong on such a processor with weights of 8 bits.

    Without VNNI, x86 adds two products up in 16 bits (`vpmaddubsw`) and saturates: 2 * 255 * 127 is too much.
    machine: as `uname -m` says it; features: LLVM's names.
    """
    return machine == "x86_64" and not {"avx512vnni", "avxvnni"} & set(features)


def saturates_here() -> bool:
    here = describe()
    return saturates(here["machine"], here["features"])


def quantize(
    floats: Path, int8: Path, samples: Sequence[Sequence[np.ndarray]], *, reduce_range: bool
) -> None:
    """ONNX Runtime's recipe: shapes and fusions, then uint8 activations and int8 weights per channel.

    samples: each an array for every input of the network, which the ranges of activations are taken from.
    reduce_range: weights of 7 bits, as ONNX Runtime advises where its kernels saturate.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [given.name for given in onnx.load(str(floats), load_external_data=False).graph.input]

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = list(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return dict(zip(names, self.samples.pop(), strict=True)) if self.samples else None

    processed = int8.with_suffix(".processed.onnx")
    with _quiet():
        # Its symbolic shapes fail on networks such as a BERT; here all are numbers, which ONNX infers itself.
        quant_pre_process(str(floats), str(processed), skip_symbolic_shape=True)
        quantize_static(
            str(processed),
            str(int8),
            Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    processed.unlink()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
