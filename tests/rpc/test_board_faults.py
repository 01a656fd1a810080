"""What trackers and boards survive: code, files, clients, disks and one another."""

import contextlib
import os
import random
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from tvm.rpc.base import RPC_MAGIC, RPC_TRACKER_MAGIC
from tvm.script import relax as R

from rpc import session, wire
from rpc.session import RemoteError
from rpc.wire import Address, Tracker
from tests.rpc.boards import (
    A72,
    A76,
    HOST,
    Command,
    Site,
    X,
    calling,
    crashing,
    endless,
    eventually,
    export,
    registered,
    unary,
    works,
)


@pytest.mark.parametrize("where", ["here", "arm"])
def test_a_kernel_that_hangs_or_crashes(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, square: Callable[..., Path]
) -> None:
    tracker, key = request.getfixturevalue(where)
    target = HOST if where == "here" else A72
    x = np.ones(64, "float32")

    def run(library: Path, limit_s: float) -> None:
        with session.session(tracker, key, wait_s=60, limit_s=limit_s) as board:
            board.network(library).run([x])

    hanging = export(calling(endless), tmp_path / "endless.so", target)
    with pytest.raises(RemoteError, match=r"The board ended the session after its limit of 3 s\."):
        run(hanging, 3)
    works(tracker, key, square(target))
    crash = export(calling(crashing), tmp_path / "crash.so", target)
    with pytest.raises(RemoteError, match="died of SIGSEGV: it reached for memory that is not its own"):
        run(crash, 60)
    works(tracker, key, square(target))


def test_instructions_that_the_processor_lacks(
    arm: tuple[Address, str], tmp_path: Path, square: Callable[..., Path]
) -> None:
    library = export(unary(lambda x: R.add(x, x), (64,), "float16"), tmp_path / "half.so", A76)
    with session.session(*arm, wait_s=60, limit_s=60) as board:
        network = board.network(library)
        with pytest.raises(RemoteError, match="died of SIGILL: it used an instruction that this processor"):
            network.run([np.ones(64, "float16")])
    works(*arm, square(A72))


@pytest.mark.parametrize("where", ["here", "arm"])
def test_what_is_no_library_for_this_board(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, square: Callable[..., Path]
) -> None:
    tracker, key = request.getfixturevalue(where)
    other = square(A72 if where == "here" else HOST)
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"not a library")
    for library in other, garbage:
        with (
            session.session(tracker, key, wait_s=60, limit_s=60) as board,
            pytest.raises(RemoteError, match=f"loading {library} failed: .+"),
        ):
            board.network(library)
    works(tracker, key, square(HOST if where == "here" else A72))


def test_an_upload_that_is_damaged_on_its_way(here: tuple[Address, str], square: Callable[..., Path]) -> None:
    with session.session(*here, wait_s=60, limit_s=60) as board:
        send = board.remote.upload

        def damage(content: bytearray, name: str) -> None:
            content = bytearray(content)
            content[1000] ^= 1
            send(content, name)

        board.remote.upload = damage
        with pytest.raises(RemoteError, match="was damaged on its way to the board 'here'"):
            board.network(square(HOST))
        board.remote.upload = send
        board.network(square(HOST))


def test_a_full_disk(
    site: Site, start: Callable[..., Command], square: Callable[..., Path], tmp_path: Path
) -> None:
    tracker = site.tracker.address
    words = ["board", "--tracker", wire.show(tracker), "--emulate"]
    start(*words, "--key", "small", max_file_bytes=1 << 20)
    registered(tracker, 3)
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 21))
    with (
        session.session(tracker, "small", wait_s=60, limit_s=60) as board,
        pytest.raises(RemoteError, match="Of the 2097152 bytes of .*, .* kept 1048576: its disk is full"),
    ):
        board.upload(large)
    works(tracker, "small", square(A72))


def test_a_tracker_that_goes_away(start: Callable[..., Command], square: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    first = start("tracker", "--port", port)
    tracker = first.address
    board = start("board", "--tracker", wire.show(tracker), "--key", "here")
    registered(tracker)
    with session.session(tracker, "here", wait_s=60, limit_s=60) as held:
        first.process.kill()
        first.process.wait()
        with (
            pytest.raises(RemoteError, match=f"There is no tracker at 127.0.0.1:{port}: connection refused"),
            session.session(tracker, "here", wait_s=60, limit_s=60),
        ):
            pass
        held.network(square(HOST)).run([X])  # who has a board needs no tracker
    eventually(lambda: "Trying again every" in board.log.read_text())
    assert start("tracker", "--port", port).says
    registered(tracker)
    works(tracker, "here", square(HOST))


def test_nothing_is_left_over(start: Callable[..., Command]) -> None:
    """Of commands that are stopped while clients have their boards, by SIGTERM and by Ctrl-C."""
    tracker = start("tracker", "--port", "0")
    words = ["board", "--tracker", wire.show(tracker.address), "--key"]
    boards = [start(*words, "here"), start(*words, "a72", "--emulate")]
    registered(tracker.address, 2)
    with (
        session.session(tracker.address, "here", wait_s=60, limit_s=60),
        session.session(tracker.address, "a72", wait_s=60, limit_s=60),
    ):
        children = [psutil.Process(board.process.pid).children(recursive=True) for board in boards]
        assert [len(processes) for processes in children] == [1, 1]
        assert len(list(tracker.temporary.iterdir())) == 2
        stops = zip([*boards, tracker], [signal.SIGTERM, signal.SIGINT, signal.SIGINT], strict=True)
        assert [command.stop(number) for command, number in stops] == [0, 0, 0]
        assert not any(child.is_running() for [child] in children)
        assert list(tracker.temporary.iterdir()) == []


def test_a_board_that_is_killed_takes_its_session_with_it(site: Site, start: Callable[..., Command]) -> None:
    tracker = site.tracker.address
    board = start("board", "--tracker", wire.show(tracker), "--key", "k")
    registered(tracker, 3)
    with session.session(tracker, "k", wait_s=60, limit_s=60):
        [child] = psutil.Process(board.process.pid).children()
        board.process.kill()
        board.process.wait()
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    [left] = board.temporary.iterdir()
    os.utime(left, (0, 0))
    start("board", "--tracker", "127.0.0.1:1", "--key", "k")
    eventually(lambda: not left.exists())
    eventually(lambda: len(list(board.temporary.iterdir())) == 1)
    registered(tracker, 2)


def test_garbage_neither_kills_nor_blocks(site: Site, square: Callable[..., Path]) -> None:
    rng = random.Random(0)
    sent = [rng.randbytes(size) for size in (1, 3, 4, 5, 100, 10_000)]
    for magic in RPC_MAGIC, RPC_TRACKER_MAGIC:
        begun = struct.pack("<i", magic)
        sent += [begun, begun + b"\xff\xff\xff\x7f", begun + b"\xff\xff\xff\xff" + bytes(100)]
        sent += [
            begun + struct.pack("<i", len(words)) + words
            for words in (b"client:here:0.5", b"\xff\xfe", b"[9]")
        ]
    with contextlib.ExitStack() as stack:
        for address in site.tracker.address, site.here.address:
            for part in sent * 10:
                connection = stack.enter_context(socket.create_connection(address, timeout=10))
                with contextlib.suppress(OSError):
                    connection.sendall(part)
        for words in b"{", b"[3]", b'[4, [], "", "x"]', b"[" * 100_000, b"\xff", b'[3, "here", ["x", "y"]]':
            with contextlib.closing(Tracker(site.tracker.address)) as stranger:
                stranger.socket.sendall(struct.pack("<i", len(words)) + words)
        works(site.tracker.address, "here", square(HOST))
    assert "Traceback" not in site.here.log.read_text() + site.tracker.log.read_text()
    assert site.here.process.poll() is None and site.tracker.process.poll() is None
