"""Compiled networks as libraries for C, called from here: what the tests and the grid share."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import trainers
from bibench_tvm import compile_model
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.artifact.manifest import Standalone
from rpc.emulation.c_network import CNetwork

POOL_RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)


class Both(torch.nn.Module):
    """A convolutional and a dense network: an image and a vector in, two tensors and classes out."""

    def __init__(self, algorithm: str):
        super().__init__()
        torch.manual_seed(0)
        self.image = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.Conv2d(16, 24, 3, padding=1),
            torch.nn.BatchNorm2d(24),
            torch.nn.Conv2d(24, 8, 3, stride=2),
        )
        self.vector = torch.nn.Sequential(
            torch.nn.Linear(19, 33), torch.nn.BatchNorm1d(33), torch.nn.Linear(33, 21), torch.nn.Linear(21, 5)
        )
        keep = ["image.0", "vector.0", "vector.3"]
        trainers.binarize(self, algorithm, keep=keep)

    def forward(self, image: torch.Tensor, vector: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = self.vector(vector)
        return self.image(image), torch.softmax(scores, 1), scores.argmax(1)


def compiled(algorithm: str, out: Path, batch: int = 1, **options: object) -> Artifact:
    inputs = torch.zeros(batch, 3, 8, 8), torch.zeros(batch, 19)
    return compile_model(Both(algorithm).eval(), inputs, out=out, standalone=True, **options)


def record(artifact: Artifact) -> Standalone:
    assert isinstance(artifact.record.standalone, Standalone)
    return artifact.record.standalone


def samples(artifact: Artifact, count: int = 2) -> list[list[np.ndarray]]:
    chance = np.random.default_rng(0)
    return [
        [chance.standard_normal(spec.shape).astype(spec.dtype) for spec in artifact.record.inputs]
        for _ in range(count)
    ]


def network(artifact: Artifact) -> CNetwork:
    folder, name = artifact.folder / "standalone", record(artifact).name
    outputs = [np.zeros(spec.shape, spec.dtype) for spec in artifact.record.outputs]
    return CNetwork(folder / f"lib{name}.a", folder / f"{name}.h", name, outputs)


def by_ctypes(artifact: Artifact, inputs: Sequence[np.ndarray], threads: int = 0) -> list[np.ndarray]:
    """One run, on buffers that begin one element after a multiple of 64 bytes."""
    library, made = ctypes.CDLL(artifact.folder / "standalone" / "libmodel.so"), record(artifact)
    arrays = [*inputs, *(np.zeros(spec.shape, spec.dtype) for spec in artifact.record.outputs)]
    memory = made.workspace_bytes + max(threads - 1, 0) * made.thread_bytes
    kept = [placed(np.frombuffer(array.tobytes(), array.dtype), array.itemsize) for array in arrays]
    workspace = placed(np.full(memory, 0xA5, np.uint8), 0)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*kept, workspace)]
    if not threads:
        assert library.model_run(*pointers) == 0
        return [a.reshape(b.shape) for a, b in zip(kept, arrays, strict=True)][len(inputs) :]

    def run(_: int, task: int, data: int, count: int) -> None:
        share = [threading.Thread(target=TASK(task), args=(data, i, count)) for i in range(count)]
        for thread in share:
            thread.start()
        for thread in share:
            thread.join()

    callback = POOL_RUN(run)

    class Pool(ctypes.Structure):
        _fields_ = [("run", POOL_RUN), ("self", ctypes.c_void_p), ("threads", ctypes.c_int32)]

    assert library.model_run_threads(*pointers, ctypes.byref(Pool(callback, None, threads))) == 0
    return [a.reshape(b.shape) for a, b in zip(kept, arrays, strict=True)][len(inputs) :]


def placed(array: np.ndarray, beyond: int) -> np.ndarray:
    """A copy whose address is so many bytes beyond a multiple of 64."""
    room = np.zeros(array.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + beyond
    copy = room[start : start + array.nbytes].view(array.dtype)
    copy[:] = array
    return copy


def same(ours: Sequence[np.ndarray], theirs: object) -> bool:
    expected = theirs if isinstance(theirs, tuple) else (theirs,)
    return [a.tobytes() for a in ours] == [np.asarray(b).tobytes() for b in expected]
