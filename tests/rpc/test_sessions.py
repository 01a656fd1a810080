"""What a client is told when its board, its tracker or its session fails, wherever it is at that moment."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rpc import server, session
from rpc.emulation import qemu
from rpc.session import Board, RemoteError, local_board
from rpc.wire import Address, receive

ROOT = Path(__file__).parent.parent.parent
MARK = f"{10**6 + os.getpid()}"  # how long the strays sleep, so that they can be told from others

FUNCTIONS = r"""
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#define FUNCTION(name) int __tvm_ffi_##name(void* self, const void* arguments, int32_t count, void* result)
FUNCTION(hang) { for (;;) pause(); }
FUNCTION(crash) { *(volatile int*)0 = 1; return 0; }
FUNCTION(stray) {  // one that left its session, and one that left its parent too
  if (fork() == 0) { setsid(); execlp("sleep", "sleep", MARK, NULL); }
  if (fork() == 0) { setsid(); if (fork() == 0) execlp("sleep", "sleep", MARK, NULL); _exit(0); }
  usleep(300000);
  return 0;
}
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that hangs, crashes and leaves processes behind."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions.c").write_text(FUNCTIONS)
    line = [
        *qemu._host_compiler(),
        f'-DMARK="{MARK}"',
        "-shared",
        "-fPIC",
        "-o",
        str(folder / "functions.so"),
    ]
    subprocess.run([*line, str(folder / "functions.c")], check=True)
    return folder / "functions.so"


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[Address, str]]:
    with local_board() as place:
        yield place


def between_calls(board: Board, library: Path) -> None:
    time.sleep(2)
    board.threads()


def inside_short_calls(board: Board, library: Path) -> None:
    while True:
        board.conditions()


def uploading(board: Board, library: Path) -> None:
    large = library.parent / "large"
    large.write_bytes(bytes(1 << 25))
    while True:
        board.upload(large)


def inside_a_long_call(board: Board, library: Path) -> None:
    call(board, library, "hang")


def call(board: Board, library: Path, name: str) -> None:
    module = board.remote.load_module(board.upload(library))
    with board.failing(f"calling {name}"):
        module.get_function(name)()


@pytest.mark.parametrize("doing", [between_calls, inside_short_calls, uploading, inside_a_long_call])
def test_whoever_is_at_its_limit_is_told(
    here: tuple[Address, str], functions: Path, doing: Callable[[Board, Path], None]
) -> None:
    with (
        session.session(*here, wait_s=60, limit_s=1) as board,
        pytest.raises(RemoteError, match=r"The board ended the session after its limit of 1 s\."),
    ):
        doing(board, functions)


def test_whoever_has_a_process_that_died_is_told(here: tuple[Address, str], functions: Path) -> None:
    with session.session(*here, wait_s=60, limit_s=60) as board:
        with pytest.raises(RemoteError, match="The board's process died of SIGSEGV"):
            call(board, functions, "crash")
        for again in board.threads, board.conditions, lambda: board.upload(functions):
            with pytest.raises(RemoteError, match="The board's process died of SIGSEGV"):
                again()


def strays() -> list[str]:
    return subprocess.run(["pgrep", "-f", f"sleep {MARK}"], capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("end", ["leaves", "limit", "crash"])
def test_what_left_its_group_ends_with_its_session(
    here: tuple[Address, str], functions: Path, end: str
) -> None:
    with (
        contextlib.suppress(RemoteError),
        session.session(*here, wait_s=60, limit_s=3 if end == "limit" else 60) as board,
    ):
        call(board, functions, "stray")
        assert len(strays()) == 2
        if end != "leaves":
            call(board, functions, "hang" if end == "limit" else "crash")
    until = time.monotonic() + 10
    while strays():
        assert time.monotonic() < until
        time.sleep(0.05)
    with session.session(*here, wait_s=60, limit_s=60) as board:  # and the tracker, a child too, lives on
        assert board.threads() > 0


def test_a_client_that_does_not_read_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        connection, _ = listener.accept()
    with client, connection:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while connection.send(bytes(100_000)):
                pass
        connection.setblocking(True)
        telling = threading.Thread(target=server._refuse, args=(connection, "It is over."), daemon=True)
        telling.start()
        telling.join(10)
        assert not telling.is_alive()


def answering(reply: Callable[[list[Any]], bytes]) -> Address:
    """A tracker that answers as it likes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(receive(connection, 4))
                while True:
                    (size,) = struct.unpack("<i", receive(connection, 4))
                    connection.sendall(reply(json.loads(receive(connection, size))))

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


def framed(value: object) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<i", len(text)) + text


def board_at(port: int) -> list[Any]:
    said = {"key": "server:k", "addr": ["127.0.0.1", port], "bibench": {"machine": "x86_64"}}
    return [0, {"server_info": [said], "queue_info": {}}]


@pytest.mark.parametrize(
    "answer",
    [5, None, [], {}, "x", [0], [0, 5], [0, {}], [0, {"server_info": 5}], [-1, "no"], [-1, {}]]
    + [[0, {"server_info": [], "left_out": "x"}], [0, {"server_info": [5, None, [], {}, "x", {"key": 5}]}]]
    + [[0, {"server_info": [{"key": "server:\x1b[2J", "addr": ["h", 1]}]}]]
    + [struct.pack("<i", size) + b"x" for size in (0, -1, 2**31 - 1)]
    + [struct.pack("<i", 100_000) + b"[" * 100_000, struct.pack("<i", 4) + b"\xff\xfe\xff\xfe"],
)
def test_a_tracker_that_speaks_nonsense_is_a_sentence(answer: Any) -> None:
    tracker = answering(lambda message: answer if isinstance(answer, bytes) else framed(answer))
    with (
        pytest.raises(RemoteError, match=r"^(What the|The) tracker at 127.0.0.1:\d+ [ -~]{5,200}$"),
        session.session(tracker, "k", wait_s=1, limit_s=1),
    ):
        pass


@pytest.mark.parametrize(
    "place",
    [
        5,
        ["h", 1],
        [5, 5, 5],
        ["h", 0, "k:1"],
        ["h", 70000, "k:1"],
        ["h", 9, "k:1 -x"],
        ["h", 9, ""],
        ["h", 9, 5],
    ],
)
def test_a_board_that_cannot_be_is_a_sentence(place: Any) -> None:
    tracker = answering(lambda message: framed([0, place] if message[0] == 4 else board_at(9)))
    with (
        pytest.raises(RemoteError, match=r"^What the tracker at .* says makes no sense\.$"),
        session.session(tracker, "k", wait_s=1, limit_s=1),
    ):
        pass


def test_a_board_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_GREETING_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        place = ["127.0.0.1", port, "k:1"]
        tracker = answering(lambda message: framed([0, place] if message[0] == 4 else board_at(port)))
        with (
            pytest.raises(RemoteError, match="does not answer: what is there greets as no board does"),
            session.session(tracker, "k", wait_s=0.1, limit_s=1),
        ):
            pass


def servers() -> set[int]:
    line = ["pgrep", "-P", str(os.getpid()), "-f", "rpc.local_board"]
    return set(map(int, subprocess.run(line, capture_output=True, text=True).stdout.split()))


def test_a_board_that_stops_answering_is_given_up(functions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_LATE_S", 1.0)
    monkeypatch.setattr(session, "_CONNECT_S", 0.5)
    before = servers()
    with local_board() as (tracker, key):
        [process] = servers() - before
        with session.session(tracker, key, wait_s=60, limit_s=1) as board:
            os.kill(process, signal.SIGSTOP)
            try:
                with pytest.raises(RemoteError, match=r"calling hang failed: It did not answer within 1 s\."):
                    call(board, functions, "hang")
            finally:
                os.kill(process, signal.SIGCONT)


def test_numbers_that_a_board_makes_up(here: tuple[Address, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with session.session(*here, wait_s=60, limit_s=60) as board:
        for said in "5", '{"mhz": "fast"}', '{"governor": 5}', "[", '{"load_average": []}':
            monkeypatch.setattr(board.remote, "get_function", lambda name, said=said: lambda: said)
            with pytest.raises(RemoteError, match="reading its state failed"):
                board.conditions()
        monkeypatch.undo()
        assert np.isfinite(board.conditions()["disk_free_bytes"])


def profiled(runs: list[Any], repeat: int) -> list[tuple[str, list[float]]]:
    """What a network makes of what its board told of each call, in nanoseconds."""
    network: Any = session.Network.__new__(session.Network)
    remote = SimpleNamespace(
        get_function=lambda name: lambda *asked: json.dumps(runs), cpu=lambda number: None
    )
    network._board = SimpleNamespace(remote=remote, failing=lambda doing: contextlib.nullcontext())
    network._machine = SimpleNamespace(module=None, set_input=lambda *inputs: None)
    return network.profile([], repeat=repeat)


def test_a_profile_leaves_out_the_first_run_and_what_watching_takes() -> None:
    """The least that bookkeeping ever took, 20, is in every call; nothing takes less than no time."""

    def run(*taken: int) -> list[tuple[str, int]]:
        return list(zip(("vm.builtin.alloc", "conv", "vm.builtin.free", "conv"), taken, strict=True))

    told = [run(1, 9000, 1, 9000), run(30, 120, 20, 1020), run(25, 220, 40, 15)]
    (first, times), (second, rest) = profiled(told, 2)
    assert (first, second) == ("conv", "conv")
    assert times == pytest.approx([100e-9, 200e-9]) and rest == pytest.approx([1000e-9, 0])


@pytest.mark.parametrize("runs", [[[], [["k", 1]]], [[["k", 1]]] * 4, [[["k", 1]], [["k", 1]], []]])
def test_a_profile_of_other_runs_than_asked_for_is_refused(runs: list[Any]) -> None:
    with pytest.raises(ValueError, match="2 runs were asked for"):
        profiled(runs, 2)


def test_runs_that_call_different_kernels_are_refused() -> None:
    with pytest.raises(RemoteError, match="called different kernels"):
        profiled([[["k", 1]], [["k", 1]], [["other", 1]]], 2)
