"""Trackers and boards as commands, and the small networks that they are given."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.script import relax as R
from tvm.script import tirx as T

from rpc import session
from rpc.session import list_boards
from rpc.wire import Address

ROOT = Path(__file__).parents[2]
HOST = {"kind": "llvm"}
A72 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}
A76 = {**A72, "mcpu": "cortex-a76"}
X = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")


class Command:
    """`python -m bibench_tvm.NAME --json ...` that runs until it is stopped; `says` is its JSON object."""

    def __init__(self, *words: str, folder: Path, max_file_bytes: int | None = None):
        limit = [] if max_file_bytes is None else ["prlimit", f"--fsize={max_file_bytes}"]
        self.log = folder / f"{words[0]}-{time.monotonic_ns()}.log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*limit, sys.executable, "-m", f"bibench_tvm.{words[0]}", *words[1:], "--json"],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @functools.cached_property
    def says(self) -> dict[str, Any]:
        """Read when it is needed, so that commands can start side by side."""
        assert self.process.stdout
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                break
        said = json.loads(text or "{}")
        assert "port" in said, self.log.read_text()
        return said

    @property
    def address(self) -> Address:
        return self.says["host"], self.says["port"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[Callable[..., Command]]:
    """Starts commands, and in the end stops those that still run, side by side too."""
    running: list[Command] = []

    def start(*words: str, **options: Any) -> Command:
        running.append(Command(*words, folder=folder, **options))
        return running[-1]

    try:
        yield start
    finally:
        for command in running:
            command.process.terminate()
        for command in running:
            command.process.wait(60)


@dataclass
class Site:
    tracker: Command
    here: Command
    arm: Command


def eventually(what: Callable[[], Any], within_s: float = 60) -> Any:
    """The first true value of `what`."""
    end = time.monotonic() + within_s
    while not (value := what()):
        assert time.monotonic() < end, "It did not come about."
        time.sleep(0.05)
    return value


def registered(tracker: Address, count: int = 1) -> list[Any]:
    return eventually(lambda: len(boards := list_boards(tracker)) == count and boards)


def is_free(tracker: Address, key: str) -> bool:
    [board] = [board for board in list_boards(tracker) if board.key == key]
    return board.free


def link(output: str, objects: list[str], options: object = None) -> None:
    """What `export_library` calls to link: zig's linker, which needs no system libraries for this."""
    subprocess.run([sys.executable, "-m", "ziglang", "ld.lld", "-shared", "-o", output, *objects], check=True)


def export(module: tvm.IRModule, path: Path, target: dict[str, str]) -> Path:
    tvm.compile(module, target=tvm.target.Target(target)).export_library(str(path), fcompile=link)
    return path


def unary(
    body: Callable[[Any], Any], shape: tuple[int, ...] = (64, 64), dtype: str = "float32"
) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor(shape, dtype))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(body(builder.emit(R.add(x, x)))))
    return builder.get()


def squared(x: np.ndarray) -> np.ndarray:
    return (x + x) @ (x + x)


@T.prim_func(s_tir=True)
def endless(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
    """Half an hour, which no limit in these tests allows."""
    for _ in T.serial(T.int64(1) << T.int64(42)):
        with T.sblock("endless"):
            T.reads()
            T.writes()
            y[0] = y[0] * x[0] + T.float32(1)


@T.prim_func(s_tir=True)
def crashing(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
    for i in range(64):
        with T.sblock("crashing"):
            T.reads()
            T.writes()
            y[i] = x[T.int64(i) + (T.int64(1) << T.int64(40))]


def calling(kernel: Any) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((64,), "float32"))
    function = builder.add_func(kernel, "kernel")
    with builder.function("main", [x]):
        output = builder.emit(relax.call_tir(function, (x,), R.Tensor((64,), "float32")))
        builder.emit_func_output(output)
    return builder.get()


def works(tracker: Address, key: str, library: Path) -> None:
    with session.session(tracker, key, wait_s=60, limit_s=60) as board:
        [y] = board.network(library).run([X])
    np.testing.assert_allclose(y, squared(X), rtol=1e-4, atol=1e-3)
