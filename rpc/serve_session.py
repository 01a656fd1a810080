"""One client's session on this machine: TVM's server loop, and functions of ours that a client may call.

native/serve_session.c has the same functions for an emulated board.
"""

import json
import os
import time
from typing import Any

import tvm
import tvm_ffi
from tvm.rpc import _ffi_api

from rpc import machine, onnx_board
from rpc.library import Library


def serve(connection: int) -> None:
    """Serves the client at a socket until it leaves; its files are in the current folder."""
    folder = os.getcwd()
    machine.settle_threads()

    def work_path(name: str) -> str:
        return os.path.join(folder, name)

    functions = {
        "tvm.rpc.server.workpath": work_path,
        "tvm.rpc.server.load_module": lambda name: load_module(work_path(name)),
        "bibench.board.conditions": lambda: json.dumps(machine.conditions()),
        "bibench.board.peak_memory": lambda reset: machine.peak_memory(bool(reset)),
        "bibench.board.profile": profile,
        "bibench.board.use_threads": machine.use_threads,
        **onnx_board.board_functions(folder),
    }
    for name, function in functions.items():
        tvm_ffi.register_global_func(name, function, override=True)
    _ffi_api.ServerLoop(connection)


def load_module(path: str) -> Any:
    """A client may send another library under the same name: what is open is neither that nor overwritten."""
    if not path.endswith(".so"):
        return tvm.runtime.load_module(path)  # TVM links it first
    with open(path, "rb") as file:
        return Library(file.read()).module()


def profile(network: Any, function: str, repeat: int) -> str:
    """Runs a function of a virtual machine, whose inputs are set, and times each call that it makes.

    Gives JSON: for each run a list of [symbol, nanoseconds], in the order of execution.
    """
    runs: list[list[tuple[str, int]]] = []
    start = 0

    def watch(_function: Any, symbol: str, before: bool, _result: Any, *_arguments: Any) -> int:
        nonlocal start
        taken = time.perf_counter_ns() - start
        if not before:
            runs[-1].append((symbol, taken))
        start = time.perf_counter_ns()
        return 0

    network["set_instrument"](watch)
    for _ in range(repeat):
        runs.append([])
        network["invoke_stateful"](function)
    network["set_instrument"](None)
    return json.dumps(runs)
