"""What a tracker is asked, over TVM's own protocol: a magic number, then JSON behind its length.

Without TVM itself, which takes seconds to import: a question to a tracker is answered at once.
"""

import errno
import ipaddress
import json
import socket
import struct
import time
from enum import IntEnum
from typing import Any

Address = tuple[str, int]

# Loopback: a TVM server runs whatever is sent to it.
LOCAL = "127.0.0.1"
TRACKER_PORT = 9190
_MAX_REPLY_BYTES = 1 << 26
_ANSWER_S = 10.0


# As in tvm.rpc.base.
TRACKER_MAGIC = 0x2F271
SUCCESS = 0


class TrackerCode(IntEnum):
    PING = 1
    PUT = 3
    REQUEST = 4
    UPDATE_INFO = 5
    SUMMARY = 6
    GET_PENDING_MATCHKEYS = 7


class TrackerGone(RuntimeError):
    """There is no tracker at an address, or what is there does not answer as one: the message says which."""


def parse_address(text: str) -> Address:
    """`HOST:PORT`, where an IPv6 host may stand in brackets. Raises ValueError with a sentence."""
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not an address. Write it as HOST:PORT, for example {LOCAL}:9190.")
    return host, int(port)


def tracker_address(text: str) -> Address:
    """The same, and where the text is empty, the tracker of this machine."""
    return parse_address(text) if text else (LOCAL, TRACKER_PORT)


def show(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound there and listens; port 0 is any free one. Raises ValueError with a sentence."""
    where = show((host, port))
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as problem:
        if isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE:
            raise ValueError(f"Something else listens at {where} already. Choose another --port.") from None
        raise ValueError(f"One cannot listen at {where}: {reason(problem)}.") from None


def reason(problem: BaseException) -> str:
    """Why a socket or a file failed, in the system's words."""
    return str(getattr(problem, "strerror", None) or problem or type(problem).__name__).lower().rstrip(".")


class Tracker:
    """A conversation with a tracker. A method that raises TrackerGone has ended it."""

    def __init__(self, address: Address):
        self.address = address
        try:
            self.socket = socket.create_connection(address, timeout=5)
        except OSError as problem:
            raise TrackerGone(f"There is no tracker at {show(address)}: {reason(problem)}.") from None
        try:
            self.socket.settimeout(_ANSWER_S)
            prepare(self.socket)
            self.socket.sendall(struct.pack("<i", TRACKER_MAGIC))
            answered = struct.unpack("<i", receive(self.socket, 4))[0]
        except OSError:
            answered = None
        if answered != TRACKER_MAGIC:
            self.close()
            raise TrackerGone(f"What listens at {show(address)} is not a tracker.")

    def ask(self, message: list[Any], wait_s: float = _ANSWER_S) -> Any:
        """Sends a message and gives the reply. Raises TimeoutError where none comes for `wait_s` seconds."""
        end = time.monotonic() + wait_s
        try:
            self.socket.settimeout(max(wait_s, 0.001))
            send(self.socket, message)
            (size,) = struct.unpack("<i", receive(self.socket, 4))
            if not 0 < size <= _MAX_REPLY_BYTES:
                raise ValueError(f"a reply of {size} bytes")
            self.socket.settimeout(max(end - time.monotonic(), _ANSWER_S))
            return json.loads(receive(self.socket, size))
        except TimeoutError:
            self.close()
            raise
        except (OSError, ValueError, RecursionError) as problem:
            self.close()
            raise TrackerGone(f"The tracker at {show(self.address)} went away: {reason(problem)}.") from None

    def close(self) -> None:
        self.socket.close()


def send(connection: socket.socket, message: list[Any]) -> None:
    text = json.dumps(message).encode()
    connection.sendall(struct.pack("<i", len(text)) + text)


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises OSError where the other side hangs up before."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 16))
        if not part:
            raise ConnectionResetError("the connection was closed")
        parts += part
    return bytes(parts)


def prepare(connection: socket.socket) -> None:
    """Has a message leave at once, and the system find out soon that the other machine is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def warn_of(listener: socket.socket) -> str | None:
    """The beginning of a warning about who can reach a socket; None where only this machine can."""
    host = listener.getsockname()[0]
    if ipaddress.ip_address(host.split("%")[0]).is_loopback:
        return None
    return f"This is open to other machines: whoever reaches {show(listener.getsockname()[:2])}"
