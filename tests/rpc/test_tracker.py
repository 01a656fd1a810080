"""The tracker under those who mean it ill or know no better: it goes on for all others, and stays small."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rpc.listing import Boards, list_boards
from rpc.wire import TRACKER_MAGIC, Tracker, TrackerCode, TrackerRefused, receive

ROOT = Path(__file__).parent.parent.parent
MOST_MEGABYTES = 150  # of the tracker, which begins with 20
NONSENSE: list[Any] = [None, 5, -1, 1.5, True, [], {}, "", "x" * 1000, "\ud800", ["x", 1], 10**30, "\x1b[31m"]
NONSENSE += [float("nan"), float("inf"), "server:", {"a": [1] * 50}]


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def greet(self) -> Tracker:
        return Tracker(self.address)

    def megabytes(self) -> float:
        words = Path(f"/proc/{self.process.pid}/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def boards(self) -> Boards:
        return list_boards(self.address)


@pytest.fixture
def tracker() -> Iterator[Callable[..., Running]]:
    """Starts trackers, with other values for names in rpc.tracker."""
    with contextlib.ExitStack() as stack:

        def start(**values: float) -> Running:
            code = (
                "import sys; from rpc import tracker; from rpc.wire import listen; "
                f"vars(tracker).update({values!r}); listener = listen('127.0.0.1', 0); "
                "print(listener.getsockname()[1], flush=True); tracker.serve(listener)"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout
            return Running(process, int(process.stdout.readline()))

        yield start


def register(tracker: Running, key: str, **said: object) -> Tracker:
    board = tracker.greet()
    info = {"key": f"server:{key}", "addr": [None, 9], "bibench": {"machine": "aarch64", **said}}
    assert board.ask([TrackerCode.UPDATE_INFO, info]) == 0
    assert board.ask([TrackerCode.PUT, key, [9, f"{key}:0.5"], None]) == 0
    return board


def serves_others(tracker: Running) -> None:
    """A board can be listed and had, within seconds, and the tracker has not grown."""
    start = time.monotonic()
    board = register(tracker, "honest")
    assert "honest" in {board.key for board in tracker.boards()}
    client = tracker.greet()
    assert client.ask([TrackerCode.REQUEST, "honest", "", 1]) == [0, ["127.0.0.1", 9, "honest:0.5"]]
    client.close()
    board.close()
    assert time.monotonic() - start < 10
    assert tracker.megabytes() < MOST_MEGABYTES
    assert tracker.process.poll() is None


def test_nonsense_of_every_type_in_every_field(tracker: Callable[..., Running]) -> None:
    running = tracker()
    speakers = []
    for value in NONSENSE:
        said = dict.fromkeys(("cpu", "cores", "features", "governor", "memory_bytes", "free"), value)
        for message in (
            value,
            [value],
            [TrackerCode.PUT, value, [1, "q:1"], None],
            [TrackerCode.PUT, "q", value, None],
            [TrackerCode.PUT, "q", [value, value], None],
            [TrackerCode.PUT, "q", [1, "q:1"], value],
            [TrackerCode.REQUEST, value, value, value],
            [TrackerCode.REQUEST, "nobody", "", value],
            [TrackerCode.UPDATE_INFO, value],
            [TrackerCode.UPDATE_INFO, {"key": value, "addr": ["x", 1]}],
            [TrackerCode.UPDATE_INFO, {"key": "server:q", "addr": value}],
            [TrackerCode.UPDATE_INFO, {"key": "server:q", "addr": [value, value]}],
            [TrackerCode.UPDATE_INFO, {"key": "server:q", "addr": [None, 1], "bibench": value}],
            [TrackerCode.UPDATE_INFO, {"key": "server:q", "addr": [None, 1], "bibench": said}],
            [99, value],
        ):
            speaker = running.greet()
            # What can be meant is answered or waits for a board; all else is refused, and nobody hung up.
            with contextlib.suppress(TrackerRefused, TimeoutError):
                speaker.ask(message, 0.01 if "nobody" in str(message) else 10)
            speakers.append(speaker)
    serves_others(running)
    boards = running.boards()
    assert {board.key for board in boards} <= {"q", "honest"} and boards.left_out > len(NONSENSE)


@pytest.mark.parametrize("size", [0, -1, -(2**31), 2**31 - 1, (1 << 20) + 1])
def test_a_length_that_cannot_be_is_the_end_of_a_connection(
    tracker: Callable[..., Running], size: int
) -> None:
    running = tracker()
    speaker = running.greet()
    speaker.socket.sendall(struct.pack("<i", size))
    with pytest.raises(OSError, match="closed|reset"):
        receive(speaker.socket, 4, time.monotonic() + 5)
    serves_others(running)


def test_what_is_no_message_is_refused(tracker: Callable[..., Running]) -> None:
    running = tracker()
    deep = b'[5, {"key": "server:d", "addr": [null, 1], "x": ' + b"[" * 900 + b"]" * 900 + b"}]"
    endless = b'[5, {"key": "server:d", "addr": [null, 1], "x": 1e999}]'
    speaker = running.greet()
    for text in (
        b"[" * 16000,
        b'{"a":' * 3000,
        b"1" * 16000,
        b"\xff\xfe",
        deep,
        endless,
        b"x" * 900_000,
        b"[NaN]",
    ):
        speaker.socket.sendall(struct.pack("<i", len(text)) + text)
        (size,) = struct.unpack("<i", receive(speaker.socket, 4, time.monotonic() + 10))
        assert json.loads(receive(speaker.socket, size))[0] == -1
    assert speaker.ask([TrackerCode.PING]) == 0
    serves_others(running)


def test_eighty_boards_that_say_900_kilobytes(tracker: Callable[..., Running]) -> None:
    running = tracker()
    big = [running.greet() for _ in range(80)]
    for board in big:
        with pytest.raises(TrackerRefused, match="has 16384 bytes at most"):
            board.ask([TrackerCode.UPDATE_INFO, {"key": "server:b", "addr": [None, 1], "x": "y" * 900_000}])
    serves_others(running)


def test_a_summary_that_grows_too_long_leaves_out_who_says_most(tracker: Callable[..., Running]) -> None:
    running = tracker()
    wordy = [register(running, f"wordy{i}", x="y" * 3900) for i in range(290)]
    serves_others(running)
    boards = running.boards()
    assert 0 < boards.left_out < 50 and len(boards) + boards.left_out == len(wordy)
    line = [sys.executable, "-m", "bibench_tvm.targets", "--tracker", f"127.0.0.1:{running.port}"]
    shown = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert f"Left out: {boards.left_out} that said too much of itself" in shown


def test_who_never_reads_costs_little_and_not_for_long(tracker: Callable[..., Running]) -> None:
    running = tracker(_MESSAGE_S=3.0)
    boards = [register(running, f"wordy{i}", x="y" * 3000) for i in range(200)]
    deaf = []
    for _ in range(60):
        speaker = running.greet()
        speaker.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while speaker.socket.send((struct.pack("<i", 3) + b"[6]") * 500):
                pass
        deaf.append(speaker)
    serves_others(running)
    for board in boards:
        board.close()
    end = time.monotonic() + 2
    while running.descriptors() > 32 + 10:  # of the deaf, those that came last
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(3)
    for speaker in deaf:
        with pytest.raises(OSError, match="closed|reset|timed"):
            while receive(speaker.socket, 1 << 16, time.monotonic() + 2):
                pass


def test_who_is_slow_or_silent_is_let_go(tracker: Callable[..., Running]) -> None:
    running = tracker(_MESSAGE_S=0.5)
    silent = socket.create_connection(running.address)
    slow, half, idle = running.greet(), running.greet(), running.greet()
    half.socket.sendall(struct.pack("<i", 1 << 20) + b"[")
    slow.socket.sendall(struct.pack("<i", 1000))
    with contextlib.suppress(ConnectionError):
        for _ in range(30):
            slow.socket.sendall(b" ")
            time.sleep(0.1)
    for connection in silent, half.socket, slow.socket:
        with pytest.raises(OSError, match="closed|reset"):
            receive(connection, 1, time.monotonic() + 5)
    assert idle.ask([TrackerCode.PING]) == 0  # a client may think as long as it likes


@pytest.mark.parametrize("how", ["silent", "greeted", "registered"])
def test_more_connections_than_there_is_room_for(tracker: Callable[..., Running], how: str) -> None:
    running = tracker(_MAX_CONNECTIONS=50, _SILENT_S=0.5)
    board = register(running, "there")
    held: list[Any] = []
    for i in range(120):
        if how == "silent":
            held.append(socket.create_connection(running.address))
        else:
            held.append(running.greet() if how == "greeted" else register(running, f"k{i}"))
    assert board.ask([TrackerCode.PING]) == 0 and "there" in {b.key for b in running.boards()}
    time.sleep(0.6)
    assert board.ask([TrackerCode.PING]) == 0
    serves_others(running)
    assert board.ask([TrackerCode.PING]) == 0  # who is a board already is kept
    assert running.descriptors() < 70


def test_requests_without_end_are_refused_and_forgotten(tracker: Callable[..., Running]) -> None:
    running = tracker()
    greedy = [running.greet() for _ in range(20)]
    for client in greedy:
        requests = (json.dumps([TrackerCode.REQUEST, f"{i:0100}", "", i]).encode() for i in range(64))
        client.socket.sendall(b"".join(struct.pack("<i", len(text)) + text for text in requests))
        with pytest.raises(TrackerRefused, match="waits for 64 boards at most"):
            client.ask([TrackerCode.REQUEST, "more", "", 1])
    serves_others(running)
    for client in greedy:
        client.close()
    asker = running.greet()
    assert asker.ask([TrackerCode.SUMMARY])[1]["queue_info"] == {}


def test_a_request_of_higher_priority_goes_first(tracker: Callable[..., Running]) -> None:
    running = tracker()
    clients = [running.greet() for _ in range(3)]
    for client, priority in zip(clients, [1, 1, 2], strict=True):
        text = json.dumps([TrackerCode.REQUEST, "k", "", priority]).encode()
        client.socket.sendall(struct.pack("<i", len(text)) + text)
        assert client.ask([TrackerCode.PING]) == 0
    board = running.greet()
    for i, client in enumerate([clients[2], clients[0], clients[1]]):
        assert board.ask([TrackerCode.PUT, "k", [9, f"k:{i}"], "there"]) == 0
        (size,) = struct.unpack("<i", receive(client.socket, 4, time.monotonic() + 5))
        assert json.loads(receive(client.socket, size)) == [0, ["there", 9, f"k:{i}"]]


def test_the_summary_is_that_of_the_moment(tracker: Callable[..., Running]) -> None:
    """Whoever came, asked, was served or went is in the next one; keys without anybody are in none."""
    running = tracker()
    asker, client, board = running.greet(), running.greet(), running.greet()

    def queues() -> dict[str, dict[str, int]]:
        return asker.ask([TrackerCode.SUMMARY])[1]["queue_info"]

    def asks(key: str) -> None:
        text = json.dumps([TrackerCode.REQUEST, key, "", 1]).encode()
        client.socket.sendall(struct.pack("<i", len(text)) + text)
        assert client.ask([TrackerCode.PING]) == 0

    assert queues() == {}
    for port in 9, 10:
        assert board.ask([TrackerCode.PUT, "k", [port, f"k:{port}"], None]) == 0
        assert queues() == {"k": {"free": port - 8, "pending": 0}}
    assert client.ask([TrackerCode.REQUEST, "k", "", 1])[1][1] == 9
    assert queues() == {"k": {"free": 1, "pending": 0}}
    for pending in 1, 2:
        asks("other")
        assert queues() == {"k": {"free": 1, "pending": 0}, "other": {"free": 0, "pending": pending}}
    board.close()
    assert _soon(lambda: queues() == {"other": {"free": 0, "pending": 2}})
    client.close()
    assert _soon(lambda: queues() == {})


def _soon(holds: Callable[[], bool]) -> bool:
    """Within seconds: that a connection was closed takes a moment to arrive."""
    return any(holds() or time.sleep(0.05) for _ in range(100))


def test_the_magic_number_is_tvms() -> None:
    from tvm.rpc.base import RPC_TRACKER_MAGIC
    from tvm.rpc.base import TrackerCode as Theirs

    assert TRACKER_MAGIC == RPC_TRACKER_MAGIC
    assert all(getattr(Theirs, code.name) == code.value for code in TrackerCode)
