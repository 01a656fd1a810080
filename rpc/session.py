"""The client's side: get a board from a tracker, send a network there, run it, time it and look into it.

A TVM time evaluator over `Board.remote` gives seconds on a real board; on an emulated one its unit is 1e-9
executed instructions, and so with everything here that is called time.
"""

import contextlib
import itertools
import json
import os
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax, rpc

from rpc.boards import BoardInfo, RemoteError, boards_of, list_boards
from rpc.local_board import local_board
from rpc.wire import (
    Address,
    Tracker,
    TrackerCode,
    TrackerGone,
    parse_address,
    prepare,
    show,
    tracker_address,
)

__all__ = [
    "Address",
    "Board",
    "BoardInfo",
    "Network",
    "RemoteError",
    "list_boards",
    "local_board",
    "parse_address",
    "session",
    "tracker_address",
]

_CONNECT_S = 5.0
_BOOKKEEPING = "vm.builtin."


@contextlib.contextmanager
def session(tracker: Address, key: str, *, wait_s: float, limit_s: float) -> Iterator["Board"]:
    """A board with this key, for at most `limit_s` seconds; waits `wait_s` seconds for one that is free.

    Boards are handed out in the order of asking. Raises RemoteError where there is no tracker, no such key or
    no free board, and for whatever fails on the board.
    """
    remote, info = _acquire(tracker, key, wait_s, limit_s)
    board = Board(remote, info)
    try:
        yield board
    finally:
        board.close()


def _acquire(tracker: Address, key: str, wait_s: float, limit_s: float) -> tuple[Any, BoardInfo]:
    end = time.monotonic() + wait_s
    while True:
        try:
            conversation = Tracker(tracker)
            try:
                boards = boards_of(conversation)
                mine = [board for board in boards if board.key == key]
                if not mine:
                    raise RemoteError(_no_such_key(tracker, key, boards))
                if foreign := [board for board in mine if board.machine == "unknown"]:
                    raise RemoteError(
                        f"The board {key!r} at {show(foreign[0].address)} runs TVM's own server, which lacks "
                        "what is needed here. Start it with python -m bibench_tvm.board."
                    )
                reply = conversation.ask([TrackerCode.REQUEST, key, "", 1], max(1.0, end - time.monotonic()))
            finally:
                conversation.close()
            _, (host, port, match_key) = reply
            address = str(host), int(port)
        except TimeoutError:
            busy = f"All {len(mine)} boards" if len(mine) != 1 else "The only board"
            raise RemoteError(f"{busy} with the key {key!r} had other work for {wait_s:g} s.") from None
        except TrackerGone as problem:
            raise RemoteError(str(problem)) from None
        except (TypeError, ValueError):
            raise RemoteError(f"What the tracker at {show(tracker)} says makes no sense.") from None
        try:
            # TVM's own connecting waits for minutes where a machine is switched off.
            socket.create_connection(address, timeout=_CONNECT_S).close()
            remote = rpc.connect(*address, match_key, session_timeout=limit_s)
            _notice_death(address)
        except (OSError, RuntimeError) as problem:
            if time.monotonic() < end:
                continue  # its place at the tracker is used up: the next one is another board, or it again
            raise RemoteError(
                f"The board {key!r} at {show(address)} does not answer: {_sentence(problem)}"
            ) from None
        return remote, next((board for board in mine if board.address == address), mine[0])


def _notice_death(board: Address) -> None:
    """Has the system end TVM's connection where the board's machine is gone: TVM itself waits for ever."""
    with contextlib.suppress(OSError):
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    with socket.socket(fileno=os.dup(descriptor)) as copy:
                        if copy.getpeername()[:2] == board:
                            prepare(copy)


def _no_such_key(tracker: Address, key: str, boards: Sequence[BoardInfo]) -> str:
    keys = sorted({board.key for board in boards})
    known = f"It has {', '.join(map(repr, keys))}." if keys else "It has no board at all."
    return f"The tracker at {show(tracker)} has no board with the key {key!r}. {known}"


class Board:
    """A board that is ours for a while. Its methods raise RemoteError; `remote` is TVM's own session."""

    def __init__(self, remote: Any, info: BoardInfo):
        self.remote = remote
        self.info = info
        self._sent = itertools.count(1)

    def upload(self, path: Path, content: bytes | None = None) -> str:
        """Sends a file, reads it back and compares. Gives its name on the board, which no other has.

        content: what to send in place of what the file holds now.
        """
        sent = bytearray(Path(path).read_bytes() if content is None else content)
        name = f"{next(self._sent)}-{Path(path).name}"
        with self._failing(f"sending {path}"):
            self.remote.upload(sent, name)
            arrived = self.remote.download(name)
        if arrived != sent:
            if len(arrived) == len(sent):
                raise RemoteError(f"{path} was damaged on its way to {self}: what is there differs from it.")
            raise RemoteError(
                f"Of the {len(sent)} bytes of {path}, {self} kept {len(arrived)}: its disk is full, with "
                f"{self.conditions()['disk_free_bytes']} bytes free, or limited."
            )
        return name

    def network(self, library: Path, content: bytes | None = None) -> "Network":
        """Sends a Relax executable and loads it; content: as for `upload`."""
        name = self.upload(library, content)
        with self._failing(f"loading {library}"):
            return Network(self, relax.VirtualMachine(self.remote.load_module(name), self.remote.cpu(0)))

    def conditions(self) -> dict[str, Any]:
        """What a measurement depends on, read there now; see `rpc.machine.conditions`."""
        with self._failing("reading its state"):
            return json.loads(self.remote.get_function("bibench.board.conditions")())

    def threads(self) -> int:
        """How many threads a network runs on there."""
        with self._failing("asking for its threads"):
            return int(self.remote.get_function("runtime.NumThreads")())

    def use_threads(self, count: int) -> None:
        """Runs networks on so many threads from now on; to be said before the first run."""
        if self.info.emulated and count == 1:
            return
        if self.info.emulated or count > self.info.cores > 0:
            most = "1 thread" if self.info.emulated else f"{self.info.cores} threads"
            raise RemoteError(f"{count} threads were asked for, and {self} runs {most} at most.")
        with self._failing("setting its threads"):
            self.remote.get_function("bibench.board.use_threads")(count)
        if self.threads() != count:
            raise RemoteError(f"{count} threads were asked for, and {self} runs {self.threads()}.")

    def close(self) -> None:
        """Ends the session, also where tensors or functions of the board are still held somewhere."""
        with contextlib.suppress(Exception):
            self.remote.get_function("CloseRPCConnection")()

    def __str__(self) -> str:
        kind = "the emulated board" if self.info.emulated else "the board"
        return f"{kind} {self.info.key!r} at {show(self.info.address)}"

    @contextlib.contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except RemoteError:
            raise
        except Exception as problem:  # TVM raises what it likes
            raise RemoteError(f"On {self}, {doing} failed: {_sentence(problem)}") from problem


class Network:
    """A network that is loaded on a board. Inputs are arrays of the shapes and dtypes it was compiled for."""

    def __init__(self, board: Board, machine: Any):
        self._board = board
        self._machine = machine
        self._peak_memory(True)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, tuples flattened in order."""
        with self._board._failing("running the network"):
            self._send(inputs)
            self._machine.invoke_stateful("main")
            return [tensor.numpy() for tensor in _flat(self._machine.get_outputs("main"))]

    def time(self, inputs: Sequence[np.ndarray], *, number: int, repeat: int) -> list[float]:
        """`repeat` means over `number` runs each, after one run that does not count: seconds a run.

        On an emulated board: executed instructions a run, times 1e-9, the same each time.
        """
        with self._board._failing("timing the network"):
            self._send(inputs)
            device = self._board.remote.cpu(0)
            evaluate = self._machine.time_evaluator("invoke_stateful", device, number=number, repeat=repeat)
            return [float(seconds) for seconds in evaluate("main").results]

    def profile(self, inputs: Sequence[np.ndarray], *, repeat: int) -> list[tuple[str, list[float]]]:
        """The kernels in the order of execution, each with its `repeat` times in seconds, taken in place.

        On an emulated board they are executed instructions times 1e-9. One run before does not count. What it
        takes to watch a call is the least that the virtual machine's own bookkeeping ever took, and is
        subtracted.
        """
        with self._board._failing("profiling the network"):
            self._send(inputs)
            profile = self._board.remote.get_function("bibench.board.profile")
            _, *runs = json.loads(profile(self._machine.module, "main", repeat + 1))
        bookkeeping = [taken for run in runs for name, taken in run if name.startswith(_BOOKKEEPING)]
        watching = min(bookkeeping, default=0)
        runs = [[call for call in run if not call[0].startswith(_BOOKKEEPING)] for run in runs]
        names = [name for name, _ in runs[0]]
        if any([name for name, _ in run] != names for run in runs):
            raise RemoteError("Two runs of the network called different kernels.")
        return [(name, [max(0, run[i][1] - watching) * 1e-9 for run in runs]) for i, name in enumerate(names)]

    def peak_memory_bytes(self) -> int:
        """The most memory that the board's process has had since the network was loaded, runtime and all."""
        return self._peak_memory(False)

    def _peak_memory(self, reset: bool) -> int:
        with self._board._failing("reading its memory"):
            return int(self._board.remote.get_function("bibench.board.peak_memory")(int(reset)))

    def _send(self, inputs: Sequence[np.ndarray]) -> None:
        device = self._board.remote.cpu(0)
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(array), device) for array in inputs]
        self._machine.set_input("main", *tensors)


def _flat(value: Any) -> list[Any]:
    return [value] if hasattr(value, "numpy") else [tensor for item in value for tensor in _flat(item)]


def _sentence(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1] if lines else type(problem).__name__
