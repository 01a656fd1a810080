"""Where kernels are measured: a board with TVM, or a device without it. Both are asked the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tvm

from bibench_tvm.measuring.turns import Costs, rounds
from rpc.built_kernel import BuiltKernel
from rpc.devices.device import Device, ProgramFailed
from rpc.listing import RemoteError
from rpc.missing import EmulationUnavailable

Seconds = list[float]

# Bursts, of which the quickest counts: where a worker waits for a core the rest are a thousand times as long.
_WAKING = 50


class Place(Protocol):
    """What jobs do their work on.

    emulated: a second stands for 1e9 executed instructions; name: of the one board; good_s, idle_s: how long
    it serves jobs, and how long it waits for the next one, before another client may have it.
    """

    emulated: bool
    name: str
    good_s: float
    idle_s: float | None

    def measure(
        self, kernels: Sequence[BuiltKernel], *, turns: int, burst_ms: int, outputs: int = 0
    ) -> tuple[list[Seconds], list[list[np.ndarray]]]:
        """Seconds of a call of each kernel, from bursts so long, so many; several kernels take turns. Where
        instructions are counted, those of one call. And the last `outputs` tensors of each, after a call.
        """

    def wake_s(self, kernel: BuiltKernel) -> float | None:
        """Seconds of a call of this kernel on two threads; to be asked before all else. None where there is
        one thread, or no clock."""

    def conditions(self) -> str:
        """JSON, read there now."""

    def blame(self, error: Exception) -> str:
        """Why a kernel failed on which this was raised. Raises it where not the kernel is to blame."""


class OnBoard:
    """One session of a `rpc.session.Board`. What it raises of a kernel ends it."""

    good_s = 25.0  # an older session is renewed before a trial, which so has the rest for itself
    idle_s: float | None = 0.5

    def __init__(self, board: Any):
        self.board = board
        self.emulated: bool = board.info.emulated
        self.name = ":".join(map(str, board.info.address))
        self._device = board.remote.cpu(0)
        self._loaded: dict[Path, Any] = {}

    def measure(
        self, kernels: Sequence[BuiltKernel], *, turns: int, burst_ms: int, outputs: int = 0
    ) -> tuple[list[Seconds], list[list[np.ndarray]]]:
        called = [(kernel.file, self._tensors(kernel.arrays)) for kernel in kernels]
        results: list[list[np.ndarray]] = [[] for _ in kernels]
        if outputs:
            for (file, tensors), result in zip(called, results, strict=True):
                self._load(file)[file.stem](*tensors)
                result += [tensor.numpy() for tensor in tensors[-outputs:]]
        if self.emulated:
            return [self._time(*one, number=1, repeat=1) for one in called], results
        if len(called) == 1:
            return [self._time(*called[0], repeat=turns, min_repeat_ms=burst_ms)], results
        each = {str(i): partial(self._turn, *one, burst_ms) for i, one in enumerate(called)}
        return [[seconds for (seconds,) in bursts] for bursts in rounds(each, turns).values()], results

    def wake_s(self, kernel: BuiltKernel) -> float | None:
        if self.emulated or self.board.info.cores < 2:
            return None
        self.board.use_threads(2)
        tensors = self._tensors(kernel.arrays)
        return min(self._time(kernel.file, tensors, repeat=_WAKING, min_repeat_ms=2))

    def conditions(self) -> str:
        return json.dumps({**self.board.conditions(), "threads": self._threads}, sort_keys=True)

    @cached_property
    def _threads(self) -> int:  # not asked before it may have been said how many: asking makes them
        return self.board.threads()

    def blame(self, error: Exception) -> str:
        if isinstance(error, RemoteError):
            raise error
        # First of all: the board's tensors in the error's frames, when freed, would wait for an answer.
        self.board.close()
        return self.board.why_lost() or sentence(error)

    def _load(self, library: Path) -> Any:
        """Once in a session: to overwrite a library that is loaded is the end of the process."""
        if library not in self._loaded:
            self._loaded[library] = self.board.remote.load_module(self.board.upload(library))
        return self._loaded[library]

    def _tensors(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        return [tvm.runtime.tensor(array, self._device) for array in arrays]

    def _time(self, file: Path, tensors: Sequence[Any], **number: int) -> Seconds:
        evaluator = self._load(file).time_evaluator(file.stem, self._device, **number)
        return [float(seconds) for seconds in evaluator(*tensors).results]

    def _turn(self, file: Path, tensors: Sequence[Any], burst_ms: int) -> Costs:
        return (self._time(file, tensors, repeat=1, min_repeat_ms=burst_ms)[0],)


class OnDevice:
    """A phone or board without TVM. Each measurement is a program of its own there."""

    good_s = math.inf  # nobody waits for it at a tracker
    idle_s: float | None = None

    def __init__(self, device: Device):
        self._device = device
        self.emulated = device.info.emulated
        self.name = device.info.key

    def measure(
        self, kernels: Sequence[BuiltKernel], *, turns: int, burst_ms: int, outputs: int = 0
    ) -> tuple[list[Seconds], list[list[np.ndarray]]]:
        count = 1 if self.emulated else turns
        return self._device.time_kernels(kernels, outputs=outputs, rounds=count, burst_ms=burst_ms)

    def wake_s(self, kernel: BuiltKernel) -> None:
        """The programs have one thread."""

    def conditions(self) -> str:
        return json.dumps({**self._device.conditions(), "threads": 1}, sort_keys=True)

    def blame(self, error: Exception) -> str:
        if isinstance(error, (ProgramFailed, EmulationUnavailable)):  # it crashed there, or cannot be linked
            return " ".join(str(error).split())[:300]
        raise error


def sentence(error: Exception) -> str:
    """What an error of TVM's says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"[:300]
