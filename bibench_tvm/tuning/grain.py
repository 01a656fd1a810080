"""What a second thread costs on a board: how long it takes until it works on its share of a kernel.

A kernel of two tasks that do nearly nothing is called over and over on two threads, as kernels of a network
follow each other: a worker that waits has not gone to sleep.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from bibench_tvm.cli.console import stderr
from bibench_tvm.tuning.boards import Boards
from bibench_tvm.tuning.builder import Builder, BuildFailed
from rpc.built_kernel import BuiltKernel
from rpc.session import RemoteError
from schedules.parts.write_back import KERNEL_ATTRIBUTES

_LINE = 16  # int32 of a cache line, of which each task has its own


def wake_ns(boards: Boards, builder: Builder) -> float | None:
    """None where a board cannot say it, since it has one thread, no clock or no TVM, and where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"two_tasks{boards.compiled}")
        try:
            builder.build(_two_tasks(), file, "instructions")
            with boards.opened() as here:
                seconds = here.wake_s(BuiltKernel(file, [np.zeros(2 * _LINE, "int32")]))
        except (BuildFailed, RemoteError) as error:
            stderr.print(f"What a second thread costs was not measured: {error}", soft_wrap=True)
            return None
    return None if seconds is None else seconds * 1e9


def _two_tasks() -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        done = T.arg("done", T.buffer((2 * _LINE,), "int32"))
        with T.sblock("root"), T.parallel(0, 2) as task:
            T.buffer_store(done, task, [task * _LINE])
    return builder.get()
