"""Who gets a board and when, of many who ask."""

import concurrent.futures
import contextlib
import json
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tvm

from rpc import session
from rpc.session import RemoteError
from rpc.wire import Address, Tracker, TrackerCode, receive, send
from tests.rpc.boards import HOST, ROOT, calling, endless, eventually, export, is_free, works


def ask(conversation: Tracker, key: str) -> None:
    send(conversation.socket, [TrackerCode.REQUEST, key, "", 1])


def granted(conversation: Tracker) -> tuple[str, int, str]:
    (size,) = struct.unpack("<i", receive(conversation.socket, 4))
    code, value = json.loads(receive(conversation.socket, size))
    assert code == 0
    return value


def pending(tracker: Address, key: str) -> int:
    with contextlib.closing(Tracker(tracker)) as conversation:
        return conversation.ask([TrackerCode.SUMMARY])[1]["queue_info"][key]["pending"]


def test_two_hundred_requests_are_served_in_order(here: tuple[Address, str]) -> None:
    """Eight clients with 25 requests each, all asked before the first is served."""
    tracker, key = here
    clients = [Tracker(tracker) for _ in range(8)]
    rng = random.Random(0)
    order = [rng.randrange(8) for _ in range(200)]
    with session.session(tracker, key, wait_s=60, limit_s=60):
        for place, client in enumerate(order):
            ask(clients[client], key)
            # The tracker hears the connections in any order.
            eventually(lambda place=place: pending(tracker, key) > place)
    for client in order:
        ready, _, _ = select.select([c.socket for c in clients], [], [], 60)
        assert ready == [clients[client].socket]
        host, port, match_key = granted(clients[client])
        remote = tvm.rpc.connect(host, port, match_key, session_timeout=60)
        assert remote.get_function("rpc.test.addone")(1) == 2
        remote.get_function("CloseRPCConnection")()
    for conversation in clients:
        conversation.close()
    eventually(lambda: is_free(tracker, key))


def test_eight_clients_at_once(here: tuple[Address, str]) -> None:
    tracker, key = here

    def client(number: int) -> int:
        for _ in range(5):
            with session.session(tracker, key, wait_s=120, limit_s=60) as board:
                assert board.remote.get_function("rpc.test.addone")(number) == number + 1
        return number

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(client, range(8))) == list(range(8))


def test_a_board_that_is_busy(here: tuple[Address, str]) -> None:
    tracker, key = here
    with (
        session.session(tracker, key, wait_s=60, limit_s=60),
        pytest.raises(RemoteError, match=r"The only board with the key 'here' had other work for 0\.2 s\."),
        session.session(tracker, key, wait_s=0.2, limit_s=60),
    ):
        pass


def test_a_dead_client_frees_its_board(
    here: tuple[Address, str], tmp_path: Path, square: Callable[..., Path]
) -> None:
    """One that is killed in the middle of a kernel, and one that is killed before it came to the board."""
    tracker, key = here
    library = export(calling(endless), tmp_path / "endless.so", HOST)
    code = f"""
import numpy as np
from pathlib import Path
from rpc.session import session
with session({tracker!r}, {key!r}, wait_s=60, limit_s=300) as board:
    network = board.network(Path({str(library)!r}))
    print("running", flush=True)
    network.run([np.ones(64, "float32")])
"""
    client = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert client.stdout and client.stdout.readline() == b"running\n"
    time.sleep(0.2)
    client.kill()
    client.wait()
    works(tracker, key, square(HOST))

    with contextlib.closing(Tracker(tracker)) as conversation:
        ask(conversation, key)
        granted(conversation)
    works(tracker, key, square(HOST))
