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
_MAX_REPLY_BYTES = 1 << 23
_ANSWER_S = 10.0


# As in tvm.rpc.base.
TRACKER_MAGIC = 0x2F271
SUCCESS, FAIL = 0, -1


class TrackerCode(IntEnum):
    PING = 1
    PUT = 3
    REQUEST = 4
    UPDATE_INFO = 5
    SUMMARY = 6
    GET_PENDING_MATCHKEYS = 7


# The option with which a client asks a board what became of its session, in the form of a greeting.
FATE = "-fate"
# As in tvm.rpc.base.
_RPC_MAGIC = 0xFF271
_MAX_FATE_BYTES = 1 << 14


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


class TrackerRefused(TrackerGone):
    """What a tracker was asked makes no sense to it: the message has its words. The conversation goes on."""


class Tracker:
    """A conversation with a tracker. What raises TrackerGone, but for TrackerRefused, has ended it."""

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
            answered = struct.unpack("<i", receive(self.socket, 4, time.monotonic() + _ANSWER_S))[0]
        except OSError:
            answered = None
        if answered != TRACKER_MAGIC:
            self.close()
            raise TrackerGone(f"What listens at {show(address)} is not a tracker.")

    def ask(self, message: list[Any], wait_s: float = _ANSWER_S) -> Any:
        """Sends a message and gives the reply. Raises TimeoutError where none comes for `wait_s` seconds."""
        end = time.monotonic() + max(wait_s, 0.001)
        try:
            self.socket.settimeout(_ANSWER_S)
            send(self.socket, message)
            (size,) = struct.unpack("<i", receive(self.socket, 4, end))
            if not 0 < size <= _MAX_REPLY_BYTES:
                raise ValueError(f"it announced an answer of {size} bytes")
            text = receive(self.socket, size, max(end, time.monotonic() + _ANSWER_S))
        except TimeoutError:
            self.close()
            raise
        except (OSError, ValueError) as problem:
            self.close()
            raise TrackerGone(f"The tracker at {show(self.address)} went away: {reason(problem)}.") from None
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            self.close()
            raise TrackerGone(f"What the tracker at {show(self.address)} says makes no sense.") from None
        if isinstance(reply, list) and len(reply) == 2 and reply[0] == FAIL:
            raise TrackerRefused(f"The tracker at {show(self.address)} refuses: {printable(reply[1])}")
        return reply

    def close(self) -> None:
        self.socket.close()


def send(connection: socket.socket, message: list[Any]) -> None:
    text = json.dumps(message).encode()
    connection.sendall(struct.pack("<i", len(text)) + text)


def receive(connection: socket.socket, size: int, end: float | None = None) -> bytes:
    """So many bytes, until the monotonic time `end`. Raises OSError where the other side hangs up before, and
    TimeoutError."""
    parts = bytearray()
    while len(parts) < size:
        if end is not None:
            connection.settimeout(max(end - time.monotonic(), 0.001))
        part = connection.recv(min(size - len(parts), 1 << 16))
        if not part:
            raise ConnectionResetError("the connection was closed")
        parts += part
    return bytes(parts)


def ask_fate(board: Address, match_key: str, wait_s: float) -> str:
    """Why a session of this match key was lost, in the board's words; nothing where it was not, or where the
    board does not say."""
    end = time.monotonic() + wait_s
    key = f"client:{match_key} {FATE}".encode()
    try:
        with socket.create_connection(board, timeout=wait_s) as connection:
            connection.sendall(struct.pack("<ii", _RPC_MAGIC, len(key)) + key)
            (code,) = struct.unpack("<i", receive(connection, 4, end))
            if code != _RPC_MAGIC:  # this also means success
                return ""
            (size,) = struct.unpack("<i", receive(connection, 4, end))
            said = receive(connection, size, end) if 0 < size <= _MAX_FATE_BYTES else b""
    except OSError:
        return ""
    return printable(said.decode(errors="replace"))


def printable(said: object, most: int = 2000) -> str:
    """What others say, so that it can be shown: no line breaks, nothing that steers a terminal, no book."""
    text = str(said)[: most + 1]
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else f"{text[:most]}..."


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
