"""The client's side: get a board from a tracker, send a network there, run it, time it and look into it.

A TVM time evaluator over `Board.remote` gives seconds on a real board; on an emulated one its unit is 1e-9
executed instructions, and so with everything here that is called time.
"""

import contextlib
import functools
import itertools
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import rpc
from tvm.runtime.vm import VirtualMachine

from rpc.listing import BoardInfo, RemoteError, address_of, boards_of, list_boards
from rpc.local_board import local_board
from rpc.wire import (
    Address,
    Tracker,
    TrackerCode,
    TrackerGone,
    ask_fate,
    parse_address,
    prepare,
    printable,
    reason,
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
_GREETING_S = 15.0
_LATE_S = 30.0
_MAX_MATCH_KEY = 256
_BOOKKEEPING = "vm.builtin."


@contextlib.contextmanager
def session(tracker: Address, key: str, *, wait_s: float, limit_s: float) -> Iterator["Board"]:
    """A board with this key, for at most `limit_s` seconds; waits `wait_s` seconds for one that is free.

    Boards are handed out in the order of asking. Raises RemoteError where there is no tracker, no such key or
    no free board, and for whatever fails on the board.
    """
    board = _acquire(tracker, key, wait_s, limit_s)
    # The board ends the session at its limit, and says so. One that does not has stopped to answer at all.
    watch = _later(limit_s + _LATE_S, lambda: board.hang_up(f"It did not answer within {limit_s:g} s."))
    try:
        yield board
    finally:
        watch.cancel()
        board.close()


def _acquire(tracker: Address, key: str, wait_s: float, limit_s: float) -> "Board":
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
            address = address_of(host, port)
            if not isinstance(match_key, str) or not 0 < len(match_key) <= _MAX_MATCH_KEY:
                raise ValueError
            if not match_key.isprintable() or " " in match_key:
                raise ValueError
        except TimeoutError:
            busy = f"All {len(mine)} boards" if len(mine) != 1 else "The only board"
            raise RemoteError(f"{busy} with the key {key!r} had other work for {wait_s:g} s.") from None
        except TrackerGone as problem:
            raise RemoteError(str(problem)) from None
        except (TypeError, ValueError):
            raise RemoteError(f"What the tracker at {show(tracker)} says makes no sense.") from None
        # TVM's own connecting waits for minutes where a machine is switched off, and for ever where what is
        # there says nothing.
        watch = _later(_GREETING_S, functools.partial(_hang_up, address))
        try:
            socket.create_connection(address, timeout=_CONNECT_S).close()
            remote = rpc.connect(*address, match_key, session_timeout=limit_s)
            _keep_alive(address)
        except (OSError, RuntimeError) as problem:
            if time.monotonic() < end:
                continue  # its place at the tracker is used up: the next one is another board, or it again
            why = reason(problem) if isinstance(problem, OSError) else "what is there greets as no board does"
            raise RemoteError(f"The board {key!r} at {show(address)} does not answer: {why}.") from None
        finally:
            watch.cancel()
        info = next((board for board in mine if board.address == address), mine[0])
        return Board(remote, info, address, match_key)


def _later(wait_s: float, do: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(wait_s, do)
    timer.daemon = True
    timer.start()
    return timer


def _sockets_to(board: Address) -> Iterator[socket.socket]:
    """Copies of the sockets over which TVM is connected with a board: TVM itself does not show them."""
    with contextlib.suppress(OSError):
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    with socket.socket(fileno=os.dup(descriptor)) as copy:
                        if copy.getpeername()[:2] == board:
                            yield copy


def _keep_alive(board: Address) -> None:
    """Has the system end the connection where the board's machine is gone: TVM itself waits for ever."""
    for copy in _sockets_to(board):
        prepare(copy)


def _hang_up(board: Address) -> None:
    """Ends the connection, so that a call over it fails that TVM would wait for for ever."""
    for copy in _sockets_to(board):
        copy.shutdown(socket.SHUT_RDWR)


def _no_such_key(tracker: Address, key: str, boards: Sequence[BoardInfo]) -> str:
    keys = sorted({board.key for board in boards})
    known = f"It has {', '.join(map(repr, keys))}." if keys else "It has no board at all."
    return f"The tracker at {show(tracker)} has no board with the key {key!r}. {known}"


class Board:
    """A board that is ours for a while. Its methods raise RemoteError; `remote` is TVM's own session."""

    takes_c = False  # it has TVM's runtime, and takes what that runs
    part_s = 0.2  # of timed runs that are asked for at a time: there is progress to show, and Ctrl-C to hear

    def __init__(self, remote: Any, info: BoardInfo, address: Address, match_key: str):
        self.remote = remote
        self.info = info
        self._address, self._match_key = address, match_key
        self._given_up = ""
        self._sent = itertools.count(1)

    def why_lost(self) -> str:
        """Why the board ended the session, in a sentence; nothing where it did not, as far as it says.

        TVM's connection can say it only to a client that waits for an answer, and not always to that one.
        """
        return self._given_up or ask_fate(self._address, self._match_key, _CONNECT_S)

    def hang_up(self, why: str) -> None:
        """Ends the connection from this side: whatever waits for the board fails, and `why` is its reason."""
        self._given_up = why
        _hang_up(self._address)

    def upload(self, path: Path, content: bytes | None = None) -> str:
        """Sends a file, reads it back and compares. Gives its name on the board, which no other has.

        content: what to send in place of what the file holds now.
        """
        sent = bytearray(Path(path).read_bytes() if content is None else content)
        name = f"{next(self._sent)}-{Path(path).name}"
        with self.failing(f"sending {path}"):
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
        with self.failing(f"loading {library}"):
            return Network(self, VirtualMachine(self.remote.load_module(name), self.remote.cpu(0)))

    def conditions(self) -> dict[str, Any]:
        """What a measurement depends on, read there now; see `rpc.machine.conditions`."""
        with self.failing("reading its state"):
            said = json.loads(self.remote.get_function("bibench.board.conditions")())
            texts, known = ("governor", "throttled"), {}
            for name, value in said.items():
                if value is not None and not isinstance(value, str if name in texts else (int, float)):
                    raise ValueError(f"it says {printable(value, 100)!r} of {printable(name, 100)!r}.")
                known[printable(name, 100)] = printable(value, 100) if name in texts and value else value
            return known

    def threads(self) -> int:
        """How many threads a network runs on there."""
        with self.failing("asking for its threads"):
            return int(self.remote.get_function("runtime.NumThreads")())

    def use_threads(self, count: int) -> None:
        """Runs networks on so many threads from now on; to be said before the first run."""
        if self.info.emulated and count == 1:
            return
        if self.info.emulated or count > self.info.cores > 0:
            most = "1 thread" if self.info.emulated else f"{self.info.cores} threads"
            raise RemoteError(f"{count} threads were asked for, and {self} runs {most} at most.")
        with self.failing("setting its threads"):
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
    def failing(self, doing: str) -> Iterator[None]:
        """Turns what goes wrong within it into a RemoteError with the reason."""
        try:
            yield
        except RemoteError:
            raise
        except Exception as problem:  # TVM raises what it likes
            why = self.why_lost() or _sentence(problem)
            raise RemoteError(f"On {self}, {doing} failed: {why}") from problem


class Network:
    """A network that is loaded on a board. Inputs are arrays of the shapes and dtypes it was compiled for."""

    def __init__(self, board: Board, machine: Any):
        self._board = board
        self._machine = machine
        self._peak_memory(True)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, tuples flattened in order."""
        with self._board.failing("running the network"):
            self._send(inputs)
            self._machine.invoke_stateful("main")
            return [tensor.numpy() for tensor in _flat(self._machine.get_outputs("main"))]

    def run_each(self, samples: Iterable[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """The outputs of each sample."""
        return map(self.run, samples)

    def time(self, inputs: Sequence[np.ndarray], *, number: int, repeat: int) -> list[float]:
        """`repeat` means over `number` runs each, after one run that does not count: seconds a run.

        On an emulated board: executed instructions a run, times 1e-9, the same each time.
        """
        with self._board.failing("timing the network"):
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
        with self._board.failing("profiling the network"):
            self._send(inputs)
            profile = self._board.remote.get_function("bibench.board.profile")
            _, *runs = json.loads(profile(self._machine.module, "main", repeat + 1))
            runs = [[(str(name), int(taken)) for name, taken in run] for run in runs]
            if not all(runs) or len(runs) != repeat:
                raise ValueError(f"{repeat} runs were asked for, and it told of {len(runs)}.")
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
        with self._board.failing("reading its memory"):
            return int(self._board.remote.get_function("bibench.board.peak_memory")(int(reset)))

    def _send(self, inputs: Sequence[np.ndarray]) -> None:
        device = self._board.remote.cpu(0)
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(array), device) for array in inputs]
        self._machine.set_input("main", *tensors)


def _flat(value: Any) -> list[Any]:
    return [value] if hasattr(value, "numpy") else [tensor for item in value for tensor in _flat(item)]


def _sentence(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return printable(lines[-1]) if lines else type(problem).__name__
