"""One process for each library, which runs its contestants when it is told to: no library's threads spin
while another is measured, and a crash is a line in the report."""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import PEERS, limit_threads
from benchmarks.timing import burst_of
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.measuring.turns import Burst, Costs, calls_within

TIMEOUT_S = 600.0


class Failed(BibenchError):
    """A contestant failed; the message says how. fatal: its process is of no more use."""

    def __init__(self, message: str, *, fatal: bool = False):
        super().__init__(message)
        self.fatal = fatal


class Worker:
    """Contestants of one library in a process of their own; each has a key."""

    def __init__(self, threads: int):
        limit_threads(threads)  # the child inherits the environment
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        self._process.start()
        theirs.close()

    def open(self, key: str, how: str, *arguments: Any, seconds: float) -> Any:
        """Open what `OPENERS[how]` opens, check it, and see how many calls fill a burst. Raises Failed."""
        return self._ask("open", key, how, arguments, seconds)

    def burst(self, key: str) -> Costs:
        """Seconds of processor time and of wall time, a call. Raises Failed."""
        return self._ask("burst", key)

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, *question: Any) -> Any:
        try:
            self._pipe.send(question)
            if not self._pipe.poll(TIMEOUT_S):
                raise Failed(f"It did not answer within {TIMEOUT_S:g} seconds.", fatal=True)
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise Failed(f"Its process ended with status {self._process.exitcode}.", fatal=True) from None
        if kind == "failed":
            raise Failed(answer)
        return answer


def _serve(pipe: Any, threads: int) -> None:
    bursts: dict[str, tuple[Burst, int]] = {}
    while True:
        try:
            task, key, *rest = pipe.recv()
        except EOFError:
            return
        try:
            if task == "open":
                how, arguments, seconds = rest
                burst, about = OPENERS[how](*arguments, threads)
                if burst is not None:
                    bursts[key] = burst, calls_within(burst, seconds)
                pipe.send(("done", about))
            else:
                burst, calls = bursts[key]
                burst(1)  # the others have had the caches meanwhile
                pipe.send(("done", burst(calls)))
        except Exception as error:
            words = str(error).strip().splitlines() or ["no message"]
            sentence = isinstance(error, (BibenchError, ValueError))
            pipe.send(("failed", words[0] if sentence else f"{type(error).__name__}: {words[0]}"))


def _open_contestant(name: str, case: str, threads: int) -> tuple[Burst, dict[str, float | None]]:
    """Checks the output; its largest difference from the reference, relative to the largest entry."""
    contestant = PEERS[name].contestant(Path(case), threads)
    return contestant.burst, {"difference": contestant.check()}


def _open_shares(case: str, threads: int) -> tuple[None, dict[str, dict[str, float]]]:
    from benchmarks.shares import of_roof, shares, timed

    calls, rate = timed(Path(case) / "ours", np.load(Path(case) / "input.npy"))
    return None, {"shares": shares(calls), "of_roof": of_roof(calls, rate)}


def _open_roof(kind: str, threads: int) -> tuple[Burst, dict[str, int]]:
    from benchmarks import limit
    from bibench_tvm.compiling.processors import resolve_target

    target = resolve_target("host")
    return burst_of(limit.roof(kind, target)), {"macs": limit.products_a_call(kind, target)}


@functools.cache
def _kernels(kind: str, name: str) -> tuple[dict[str, Any], Any]:
    """(one kernel of each symbol in a layer's chain or a network, all of them compiled)."""
    from benchmarks import kernels, shapes
    from bibench_tvm.compiling.processors import resolve_target

    target = resolve_target("host")
    if kind == "network":
        model, x = shapes.network(name, "bnn")
    else:
        shape = (shapes.LAYERS | shapes.EXTRA)[name]
        model, x = shapes.chain(shape), shapes.example(shape)
    found = kernels.kernels_of(model, x, target)
    if kind == "layer":
        found = [kernel for kernel in found if kernel.binary][:1]
    distinct = {kernel.symbol: kernel for kernel in found if kernel.binary}
    return distinct, kernels.built(list(distinct.values()), target)


def _list_kernels(kind: str, name: str, threads: int) -> tuple[None, dict[str, int]]:
    return None, {symbol: kernel.macs for symbol, kernel in _kernels(kind, name)[0].items()}


def _open_kernel(kind: str, name: str, symbol: str, threads: int) -> tuple[Burst, dict[str, Any]]:
    """One binary kernel, called from C++ over and over: its own time, without a caller in Python."""
    import tvm

    kernels, library = _kernels(kind, name)
    kernel = kernels[symbol]
    tensors = [tvm.runtime.tensor(array) for array in kernel.arguments]
    library[symbol](*tensors)
    kernel.check([tensor.numpy() for tensor in tensors])

    def burst(calls: int) -> Costs:
        evaluator = library.mod.time_evaluator(symbol, tvm.cpu(), number=calls, repeat=1)
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        evaluator(*tensors)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        runs = calls + 1  # the evaluator warms up with one
        return cpu / runs / 1e9, wall / runs / 1e9

    return burst, {"macs": kernel.macs, "layer": kernel.layer}


OPENERS: dict[str, Callable[..., tuple[Burst | None, Any]]] = {
    "contestant": _open_contestant,
    "shares": _open_shares,
    "roof": _open_roof,
    "kernels": _list_kernels,
    "kernel": _open_kernel,
}


def missing(library: str) -> bool:
    return importlib.util.find_spec(library) is None
