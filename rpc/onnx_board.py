"""ONNX Runtime on this machine, where it is installed: what a client of a board compares a network with."""

import importlib.util
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tvm


class OnnxRuntime:
    """A session on this machine, with the `run` and `time` of a network on a board."""

    def __init__(self, file: Path, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        run, read = self.bound(inputs)
        return [read(run())]

    def time(self, inputs: Sequence[np.ndarray], *, number: int, repeat: int) -> list[float]:
        """Seconds a run: `repeat` means over `number` runs, after one that warms up."""
        run, _ = self.bound(inputs)
        run()
        taken = []
        for _ in range(repeat):
            start = time.perf_counter_ns()
            for _ in range(number):
                run()
            taken.append((time.perf_counter_ns() - start) / number / 1e9)
        return taken

    def bound(self, inputs: Sequence[np.ndarray]) -> tuple[Callable[[], Any], Callable[[Any], np.ndarray]]:
        """(run, read): `run()` is one inference, inputs already there; `read(run())` is its first output."""
        import onnxruntime

        binding = self.session.io_binding()
        for spec, array in zip(self.session.get_inputs(), inputs, strict=True):
            binding.bind_ortvalue_input(spec.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        binding.bind_output(self.session.get_outputs()[0].name)

        def run() -> Any:
            self.session.run_with_iobinding(binding)
            return binding

        return run, lambda done: done.copy_outputs_to_cpu()[0]


def board_functions(folder: str) -> dict[str, Callable[..., Any]]:
    """What a board offers of it to a client, whose files are in the folder."""

    @cache
    def opened(name: str, threads: int) -> OnnxRuntime:
        return OnnxRuntime(Path(folder, os.path.basename(name)), threads)

    def run(name: str, threads: int, *inputs: Any) -> Any:
        return tvm.runtime.tensor(opened(name, threads).run([x.numpy() for x in inputs])[0])

    def measure(name: str, threads: int, number: int, repeat: int, *inputs: Any) -> str:
        arrays = [x.numpy() for x in inputs]
        return json.dumps(opened(name, threads).time(arrays, number=number, repeat=repeat))

    return {
        "bibench.board.onnx_runtime.installed": lambda: importlib.util.find_spec("onnxruntime") is not None,
        "bibench.board.onnx_runtime.run": run,
        "bibench.board.onnx_runtime.time": measure,
    }
